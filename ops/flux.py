"""Lets Flux follow this clone's `origin`: applies the age key and clusters/local. `python -m ops.flux`."""

import base64
import re
from typing import Any
from urllib.parse import urlsplit

from ops import cluster, pins, sops
from ops.command import ROOT, Unusable, command_line, output, show
from ops.kustomize import rendered
from ops.secrets import listed
from ops.tools import kubectl

TIMEOUT_S = 60
# sum of the timeouts of the three Flux Kustomizations
READY_TIMEOUT_S = 1500


def main() -> None:
    """Apply clusters/local, and wait until Flux has applied everything in git.

    Raises Unusable if Flux, the encrypted Secrets, or a usable `origin` and branch are missing.
    """
    cluster.check()
    if not cluster.has("crd", "kustomizations.kustomize.toolkit.fluxcd.io"):
        raise Unusable(f"Flux is not installed: run `flux install --version=v{pins.FLUX}`, and then this again.")
    if not list(ROOT.glob(f"{sops.CLUSTER}/*/secrets/*.sops.yaml")):
        raise Unusable("There are no encrypted Secrets: run `make secrets FLUX=1`, commit, push, and run this again.")
    url, branch = git_url(_git("remote", "get-url", "origin")), _git("branch", "--show-current")
    print(f"Flux follows the branch {branch} of {url}")
    _apply([_key_secret(), *objects(url, branch)])
    names = ("kustomization/infrastructure", "kustomization/apps", "kustomization/api")
    wait = ("wait", *names, "--namespace=flux-system", "--for=condition=Ready", f"--timeout={READY_TIMEOUT_S}s")
    show(kubectl(), *wait, timeout_s=READY_TIMEOUT_S + TIMEOUT_S)


def objects(url: str, branch: str) -> list[dict[str, Any]]:
    """The objects of clusters/local, with this URL and branch in the GitRepository."""
    found = rendered(ROOT / sops.CLUSTER)
    for each in found:
        if each["kind"] == "GitRepository":
            each["spec"] |= {"url": url, "ref": {"branch": branch}}
    return found


def git_url(origin: str) -> str:
    """The URL of a git remote, in the form that Flux reads: the short form user@host:path becomes ssh://user@host/path.

    Raises Unusable if it is neither HTTPS nor SSH, or an HTTPS URL with a user. Makes no connection.
    """
    short = re.fullmatch(r"([\w.-]+@[\w.-]+):(?!/)(.+)", origin)
    url = f"ssh://{short[1]}/{short[2]}" if short else origin
    if url.startswith("http://"):
        raise Unusable(
            f"Plain HTTP to {urlsplit(url).hostname} can be changed on its way: set an HTTPS or SSH address by `git "
            "remote set-url origin`."
        )
    if not url.startswith(("https://", "ssh://")):
        raise Unusable(f"Flux cannot reach {origin}: set an HTTPS or SSH address by `git remote set-url origin`.")
    if url.startswith("https://") and urlsplit(url).username:  # the URL is printed, and readable in the cluster
        raise Unusable(
            "The address of origin contains a credential: remove it, and name a Secret with it as `secretRef` in "
            "clusters/local/source.yaml."
        )
    return url


def _key_secret() -> dict[str, Any]:
    key = base64.b64encode(sops.key_file().read_bytes()).decode()
    metadata = {"name": "sops-age", "namespace": "flux-system"}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "data": {"age.agekey": key}}


def _apply(all_: list[dict[str, Any]]) -> None:
    arguments = ("apply", "--server-side", "--force-conflicts", "--field-manager=sluice-flux", "--filename=-")
    show(kubectl(), *arguments, text=listed(all_), timeout_s=TIMEOUT_S)


def _git(*arguments: str) -> str:
    try:
        answer = output("git", *arguments, timeout_s=TIMEOUT_S).strip()
    except Unusable as exc:
        raise Unusable(f"{exc} Flux needs this clone's remote `origin` and a branch.") from exc
    if not answer:
        raise Unusable("This clone is on no branch: check one out, as Flux follows a branch.")
    return answer


if __name__ == "__main__":
    command_line(main)
