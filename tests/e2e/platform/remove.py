"""Takes the system out of a cluster of the tests, so that the next one comes into an empty cluster."""

import yaml

from deploy import cluster as api
from deploy.platform import FOLDER, releases
from deploy.run import ROOT, output
from deploy.tools import built, kubectl

TIMEOUT_S = 300
FLUX = "flux-system"
# Controllers have to let go of their objects: what goes before its objects leaves them for ever, KEDA and Flux alike.
FOLLOWED = ("kustomization/apps", "kustomization/infrastructure", "gitrepository/sluice")
APPS = ("fastapi", "celery-workers")


def remove() -> None:
    """From the cluster that KUBECONFIG names: Flux, the apps, the charts, their namespaces. Volumes keep their data."""
    if api.has("namespace", FLUX):
        for part in FOLLOWED:
            _delete(part, f"--namespace={FLUX}")
    _delete("namespace", *APPS)
    text = output(kubectl(), "kustomize", ROOT / FOLDER, timeout_s=TIMEOUT_S)
    platform = releases(list(yaml.safe_load_all(text)))
    for release in platform:
        where = (f"--namespace={release.namespace}", "--ignore-not-found", "--wait")
        output(built("helm"), "uninstall", release.name, *where, timeout_s=TIMEOUT_S)
    _delete("namespace", *{release.namespace for release in platform}, FLUX)


def _delete(*what: str) -> None:
    api.ask("delete", *what, "--ignore-not-found", f"--timeout={TIMEOUT_S}s", timeout_s=TIMEOUT_S)
