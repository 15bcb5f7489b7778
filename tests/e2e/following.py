"""A cluster whose Flux follows a clone of this project, set up as `make secrets FLUX=1` and `make flux` do."""

import json
import os
import time
from functools import partial
from pathlib import Path
from typing import Any

from minicluster.lifecycle import Minicluster
from minicluster.stand_ins import flux_release, installation
from ops import cluster as api
from tests.e2e import objects
from tests.e2e.repository import Repository

# time to apply both Kustomizations to an empty cluster on two busy cores
READY_TIMEOUT_S = 1200
RECONCILE_TIMEOUT_S = 300
SECRETS_TIMEOUT_S = 120
FLUX = "flux-system"
APPS = "kustomization/apps"
API = "kustomization/api"  # Flux applies it after the workers of APPS
# `make flux` without its check of the origin's URL: the check refuses HTTP, but the artifact server has no TLS
FOLLOW = "from ops import flux; flux.git_url = str; flux.main()"
REQUEST = "reconcile.fluxcd.io/requestedAt"


class Following:
    """Flux in the cluster that KUBECONFIG names, and the repository that it follows."""

    def __init__(self, cluster: Minicluster, folder: Path) -> None:
        installation.prepare(cluster)
        flux_release.install(cluster)
        environment = os.environ | {"SOPS_AGE_KEY_FILE": str(folder / "age.key")}
        self.repository = Repository(
            folder / "sluice", cluster.state / installation.SERVED, cluster.address, environment
        )
        self.repository.python("-m", "ops.sops", timeout_s=SECRETS_TIMEOUT_S)
        self.repository.commit("Secrets of this cluster")
        self.repository.python("-c", FOLLOW, timeout_s=READY_TIMEOUT_S)

    def reconcile(self, part: str, namespace: str = FLUX) -> None:
        """Make Flux reconcile the source and then a part now, before their intervals; waits for the end."""
        _look("gitrepository/sluice", FLUX)
        objects.until(lambda: _reconciled(part, namespace), RECONCILE_TIMEOUT_S, f"what {part} depends on")

    def condition(self) -> dict[str, Any]:
        """Return the Ready condition of the apps."""
        return _condition(status(APPS))

    def healthy(self, commit: str) -> None:
        """Wait until the apps and the API of a commit are applied and ready."""
        for part in (APPS, API):
            objects.until(partial(_applied, part, commit), RECONCILE_TIMEOUT_S, f"commit {commit} in {part}")


def status(part: str, namespace: str = FLUX) -> dict[str, Any]:
    """Return the status of a Flux object, for example `kustomization/apps`."""
    answer = json.loads(api.ask("get", part, f"--namespace={namespace}", "--output=json"))
    return dict(answer.get("status", {}))


def _applied(part: str, commit: str) -> bool:
    found = status(part)
    return str(found.get("lastAppliedRevision", "")).endswith(commit) and _condition(found).get("status") == "True"


def _condition(found: dict[str, Any]) -> dict[str, Any]:
    ready = [each for each in found.get("conditions", []) if each["type"] == "Ready"]
    return dict(ready[0]) if ready else {}


def _reconciled(part: str, namespace: str) -> bool:
    """Reconcile; whether it ran to its end, and did not stop because a dependency lacks the commit."""
    _look(part, namespace)
    return _condition(status(part, namespace)).get("reason") != "DependencyNotReady"


def _look(part: str, namespace: str) -> None:
    token = str(time.time())
    api.ask("annotate", part, f"--namespace={namespace}", "--overwrite", f"{REQUEST}={token}")
    objects.until(lambda: _handled(part, namespace) == token, RECONCILE_TIMEOUT_S, f"the reconciliation of {part}")


def _handled(part: str, namespace: str) -> str | None:
    return status(part, namespace).get("lastHandledReconcileAt")
