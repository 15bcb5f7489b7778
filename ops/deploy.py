"""Applies or deletes an overlay: `python -m ops.deploy up|down [overlay] [workers|api]`.

Workers are rolled out first: new workers understand tasks of the last version's API, but old workers would have to
return tasks that only the new API accepts (apps/worker/version_returns.py). A rollback needs the reverse order:
FIRST=api.
"""

import sys
from pathlib import Path
from typing import Any

from ops import cluster
from ops.command import ROOT, Unusable, command_line, show
from ops.kustomize import rendered
from ops.secrets import listed
from ops.tools import kubectl

TIMEOUT_S = 60
KEDA = "scaledobjects.keda.sh"
# The grace period of a replaced worker is 120 s, and its successor may need as long to start.
ROLLOUT_TIMEOUT_S = 300


FIRST = ("workers", "api")
# The value of app.kubernetes.io/component of the API's Deployment. All other Deployments are workers.
API = "api"


def up(folder: Path, first: str = FIRST[0]) -> None:
    """Apply the overlay in two steps, and wait for each rollout. `first` names the Deployments of the first step.

    Raises Unusable if the cluster does not answer or has no KEDA, or if kubectl fails.
    """
    cluster.check()
    if not cluster.has("crd", KEDA):
        raise Unusable("The cluster has no KEDA: run `make secrets platform` first.")
    for part in in_order(_objects(folder), first):
        _apply(part)
    for each in _objects(folder, "ScaledObject"):
        wait = ("wait", f"scaledobject/{_name(each)}", _where(each), "--for=condition=Ready", f"--timeout={TIMEOUT_S}s")
        show(kubectl(), *wait, timeout_s=2 * TIMEOUT_S)


def in_order(objects: list[dict[str, Any]], first: str) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The objects of the first step, and the Deployments of the second step."""
    second = [each for each in objects if each["kind"] == "Deployment" and _comes_second(each, first)]
    return [each for each in objects if each not in second], second


def _comes_second(deployment: dict[str, Any], first: str) -> bool:
    is_api: bool = deployment["metadata"].get("labels", {}).get("app.kubernetes.io/component") == API
    return is_api != (first == API)


def _apply(objects: list[dict[str, Any]]) -> None:
    show(kubectl(), "apply", "--filename=-", text=listed(objects), timeout_s=ROLLOUT_TIMEOUT_S)
    for each in objects:
        if each["kind"] == "Deployment":
            wait = ("rollout", "status", f"deployment/{_name(each)}", _where(each), f"--timeout={ROLLOUT_TIMEOUT_S}s")
            show(kubectl(), *wait, timeout_s=ROLLOUT_TIMEOUT_S + TIMEOUT_S)


def down(folder: Path) -> None:
    """Delete the overlay's objects except namespaces, whose Secrets contain the passwords of the broker's users.

    The namespace `data` belongs to the platform: its network policies protect RabbitMQ and Redis.
    """
    cluster.check()
    # kubectl fails for kinds that the cluster does not know
    unknown = () if cluster.has("crd", KEDA) else ("ScaledObject", "TriggerAuthentication")
    rest = [each for each in _objects(folder) if each["kind"] not in {"Namespace", *unknown}]
    delete = ("delete", "--ignore-not-found", f"--timeout={ROLLOUT_TIMEOUT_S}s", "--filename=-")
    show(kubectl(), *delete, text=listed(rest), timeout_s=ROLLOUT_TIMEOUT_S + TIMEOUT_S)


def _objects(folder: Path, kind: str | None = None) -> list[dict[str, Any]]:
    return [each for each in rendered(folder) if kind in {None, each["kind"]}]


def _name(each: dict[str, Any]) -> str:
    return str(each["metadata"]["name"])


def _where(each: dict[str, Any]) -> str:
    return f"--namespace={each['metadata']['namespace']}"


def main() -> None:
    """Run the subcommand `up` or `down`. Raises Unusable if the overlay or FIRST is unknown."""
    verb, name = sys.argv[1], sys.argv[2] if sys.argv[2:] else "local"
    folder = ROOT / "kustomize" / "overlays" / name
    if not folder.is_dir():
        names = ", ".join(sorted(path.name for path in folder.parent.iterdir()))
        raise Unusable(f"There is no overlay {name}: set OVERLAY to one of {names}.")
    if verb == "down":
        down(folder)
        return
    first = sys.argv[3] if sys.argv[3:] else FIRST[0]
    if first not in FIRST:
        raise Unusable(f"FIRST={first} is unknown: set FIRST to {' or '.join(FIRST)}.")
    up(folder, first)


if __name__ == "__main__":
    command_line(main)
