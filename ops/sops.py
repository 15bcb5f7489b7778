"""Writes every Secret into clusters/local, encrypted by SOPS for an age key that stays outside of git.

Secrets that are there already are kept: a second run changes nothing.
"""

import hashlib
import os
from pathlib import Path
from textwrap import indent
from typing import Any

import yaml

from ops.command import ROOT, Unusable, command_line, output
from ops.credentials import Credentials
from ops.files import private_folder
from ops.secrets import READERS, key_of, manifests
from ops.tools import built
from sluice_planner.kubernetes_objects import document, document_of

TIMEOUT_S = 30
CLUSTER = "clusters/local"
# only these fields hold secrets; the rest stays readable for reviews and Kustomize
ENCRYPTED = "^(data|stringData)$"
HEAD = """# `make secrets FLUX=1` writes this file: the encrypted Secrets beside it, and their sums onto the pods that
# read them, so that these start anew with a changed one.
apiVersion: kustomize.config.k8s.io/v1alpha1
kind: Component
"""
DEPLOYMENT: dict[str, Any] = {"apiVersion": "apps/v1", "kind": "Deployment"}
HELM_RELEASE: dict[str, Any] = {"apiVersion": "helm.toolkit.fluxcd.io/v2", "kind": "HelmRelease"}


def key_file() -> Path:
    """Where the age key is: outside the clone, so that neither git nor `make clean` can touch it."""
    return Path(os.environ.get("SOPS_AGE_KEY_FILE") or Path.home() / ".config" / "sluice" / "age.key")


def into_git(root: Path = ROOT) -> None:
    """Write the files that are missing or differ; those that are there are decrypted and kept."""
    recipient = _recipient()
    there = {path: _decrypt(path) for path in sorted(root.glob(f"{CLUSTER}/*/secrets/*.sops.yaml"))}
    for secret in manifests(Credentials.from_secrets(there.values())):
        path = file_of(secret, root)
        if there.get(path) != secret:
            path.write_text(_encrypt(secret, recipient))
            print(f"wrote {path.relative_to(root)}")
    for path in differences(root):
        path.write_text(component(path.parent))
    print(f"Commit {CLUSTER}. The key to them is {key_file()}: keep a copy of it where your team keeps its keys.")


def file_of(secret: dict[str, Any], root: Path) -> Path:
    """A Secret's file: beside the Flux Kustomization that makes its namespace."""
    namespace, name = key_of(secret)
    part = "infrastructure" if namespace == "data" else "apps"
    return root / CLUSTER / part / "secrets" / f"{namespace}-{name}.sops.yaml"


def _recipient() -> str:
    """The public half of the key, which is made if there is none."""
    path = key_file()
    if not path.exists():
        private_folder(path.parent)
        output(built("age-keygen"), "-o", path, timeout_s=TIMEOUT_S)
        print(f"made the age key {path}")
    return output(built("age-keygen"), "-y", path, timeout_s=TIMEOUT_S).strip()


def _encrypt(secret: dict[str, Any], recipient: str) -> str:
    formats = ("--input-type=yaml", "--output-type=yaml", "--filename-override=secret.yaml")
    choice = (f"--age={recipient}", f"--encrypted-regex={ENCRYPTED}")
    return output(built("sops"), "encrypt", *formats, *choice, text=yaml.safe_dump(secret), timeout_s=TIMEOUT_S)


def _decrypt(path: Path) -> dict[str, Any]:
    program = built("sops")
    try:
        text = output(program, "decrypt", path, timeout_s=TIMEOUT_S, env={"SOPS_AGE_KEY_FILE": str(key_file())})
    except Unusable:
        raise Unusable(
            f"{path.name} cannot be decrypted by the key in {key_file()}: put your team's key there, or name it in "
            "SOPS_AGE_KEY_FILE."
        ) from None
    return dict(document(text))


def differences(root: Path) -> list[Path]:
    """The lists of encrypted files that are not what `component` makes of them."""
    lists = sorted(root.glob("clusters/*/*/secrets/kustomization.yaml"))
    return [path for path in lists if path.read_text() != component(path.parent)]


def component(folder: Path) -> str:
    """The Kustomize component of a folder: its encrypted files, and on each reader's pods the sum of those it reads.

    A pod reads a Secret when it starts: the sum changes with the file, and Flux replaces the pods. It is the sum of the
    encrypted text, which tells nothing of what is in it.
    """
    files = sorted(folder.glob("*.sops.yaml"))
    sums: dict[tuple[str, str], Any] = {}
    for path in files:
        namespace, name = key_of(document_of(path))
        for workload in READERS.get((namespace, name), []):
            sums.setdefault((namespace, workload), hashlib.sha256()).update(path.read_bytes())
    patches = [_restart(namespace, workload, each.hexdigest()) for (namespace, workload), each in sums.items()]
    names = "".join(f"\n  - {path.name}" for path in files) or " []"
    blocks = "".join(f"\n  - patch: |\n{indent(each, ' ' * 6).rstrip()}" for each in patches) or " []"
    return f"{HEAD}resources:{names}\npatches:{blocks}\n"


def _restart(namespace: str, workload: str, sum_: str) -> str:
    """A patch of the annotations of pods: a Deployment's, or by the values of the chart that makes a StatefulSet."""
    kind, _, name = workload.partition("/")
    annotations = {"sluice/credentials-sha256": sum_}
    head = HELM_RELEASE if kind == "statefulset" else DEPLOYMENT
    pods = {"template": {"metadata": {"annotations": annotations}}}
    spec = {"values": {"podAnnotations": annotations}} if kind == "statefulset" else pods
    return yaml.safe_dump(head | {"metadata": {"name": name, "namespace": namespace}, "spec": spec}, sort_keys=False)


def main() -> None:
    """Write the files of this clone."""
    into_git()


if __name__ == "__main__":
    command_line(main)
