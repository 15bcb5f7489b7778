"""Installs the charts without Flux, from the same HelmReleases: `python -m ops.platform [folder]`.

The default folder is clusters/local/infrastructure, which has one replica of each server. The folder helm-releases has
three RabbitMQ nodes.
"""

import sys
from dataclasses import dataclass
from typing import Any

import yaml

from ops import cluster
from ops.command import ROOT, Unusable, command_line, show
from ops.credentials import Credentials
from ops.kustomize import rendered
from ops.secrets import contents, listed
from ops.tools import built, kubectl

FOLDER = "clusters/local/infrastructure"
TIMEOUT_S = 60
UNITS_S = {"s": 1, "m": 60, "h": 3600}


@dataclass(frozen=True)
class Release:
    """A HelmRelease and the source of its chart, as arguments for helm and kubectl.

    chart     the chart and the options that select its source and version
    patches   pairs (kind/name, JSON patch) from the HelmRelease's postRenderers
    """

    name: str
    namespace: str
    chart: tuple[str, ...]
    values: dict[str, Any]
    options: tuple[str, ...]
    patches: tuple[tuple[str, str], ...]
    timeout_s: int

    def helm(self) -> tuple[str, ...]:
        """Helm's arguments. The values are passed on standard input."""
        where = ("upgrade", "--install", self.name, *self.chart, f"--namespace={self.namespace}", "--values=-")
        return *where, *self.options, *(() if self.patches else ("--wait", f"--timeout={self.timeout_s}s"))


def releases(objects: list[dict[str, Any]]) -> list[Release]:
    """The releases that these objects describe. Raises Unusable if the source of a chart is not among the objects."""
    sources = {_key(each): each["spec"] for each in objects if each["kind"].endswith("Repository")}
    return [_release(each, sources) for each in objects if each["kind"] == "HelmRelease"]


def _release(body: dict[str, Any], sources: dict[tuple[str, str, str], dict[str, Any]]) -> Release:
    spec, metadata = body["spec"], body["metadata"]
    renderers = spec.get("postRenderers") or []
    patches = [patch for renderer in renderers for patch in renderer["kustomize"]["patches"]]
    return Release(
        name=metadata["name"],
        namespace=metadata["namespace"],
        chart=_chart(spec, metadata["namespace"], sources),
        values=spec["values"],
        options=_options(spec["install"]),
        patches=tuple(
            (f"{each['target']['kind']}/{each['target']['name']}".lower(), each["patch"]) for each in patches
        ),
        timeout_s=int(spec["timeout"][:-1]) * UNITS_S[spec["timeout"][-1]],
    )


def _chart(
    spec: dict[str, Any], namespace: str, sources: dict[tuple[str, str, str], dict[str, Any]]
) -> tuple[str, ...]:
    reference = spec["chartRef"] if "chartRef" in spec else spec["chart"]["spec"]["sourceRef"]
    source = sources.get((reference["kind"], namespace, reference["name"]))
    if source is None:
        raise Unusable(
            f"There is no {reference['kind']} {namespace}/{reference['name']} for the chart of a HelmRelease: add it."
        )
    if "chartRef" in spec:
        plain = ("--plain-http",) if source.get("insecure") else ()
        return source["url"], f"--version={source['ref']['tag']}", *plain
    chart = spec["chart"]["spec"]
    return chart["chart"], f"--repo={source['url']}", f"--version={chart['version']}"


def around(objects: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The objects that the charts need: namespaces, priority classes, network policies.

    Excludes objects that only Flux reads, and Secrets, which are encrypted in git: `make secrets` creates Secrets.
    """
    return [each for each in objects if "toolkit.fluxcd.io" not in each["apiVersion"] and each["kind"] != "Secret"]


def _options(install: dict[str, Any]) -> tuple[str, ...]:
    crds = ("--skip-crds",) if install.get("crds") == "Skip" else ()
    schema = ("--skip-schema-validation",) if install.get("disableSchemaValidation") else ()
    return crds + schema


def _key(each: dict[str, Any]) -> tuple[str, str, str]:
    return each["kind"], each["metadata"]["namespace"], each["metadata"]["name"]


def main() -> None:
    """Install or upgrade every release of the folder. Raises Unusable if the folder, a Secret or a chart is missing."""
    folder = ROOT / (sys.argv[1] if sys.argv[1:] else FOLDER)
    if not (folder / "kustomization.yaml").exists():
        raise Unusable(f"{folder.relative_to(ROOT)} has no kustomization.yaml: name one of clusters/ or helm-releases.")
    _secrets_exist()
    objects = rendered(folder)
    show(kubectl(), "apply", "--filename=-", text=listed(around(objects)), timeout_s=TIMEOUT_S)
    for release in releases(objects):
        _install(release)


def _secrets_exist() -> None:
    cluster.check()
    for namespace, name in contents(Credentials()):
        if namespace == "data" and not cluster.has("secret", name, f"--namespace={namespace}"):
            raise Unusable(f"The cluster has no Secret {namespace}/{name}: run `make secrets` first.")


def _install(release: Release) -> None:
    print(f"{release.name}: {' '.join(release.chart)}")
    deadline_s = release.timeout_s + TIMEOUT_S
    show(built("helm"), *release.helm(), text=yaml.safe_dump(release.values), timeout_s=deadline_s)
    where = f"--namespace={release.namespace}"
    # Flux patches before it applies. Here helm applies first, and does not wait for pods that need the patches.
    for target, patch in release.patches:
        show(kubectl(), "patch", target, where, "--type=json", f"--patch={patch}", timeout_s=TIMEOUT_S)
    for target in {target for target, _ in release.patches}:
        wait = ("rollout", "status", target, where, f"--timeout={release.timeout_s}s")
        show(kubectl(), *wait, timeout_s=deadline_s)


if __name__ == "__main__":
    command_line(main)
