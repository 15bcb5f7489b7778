"""Applies an overlay, or takes it away: `python -m deploy.overlay up|down [overlay]`."""

import sys
from pathlib import Path
from typing import Any

import yaml

from deploy import cluster
from deploy.run import ROOT, Unusable, command_line, output, show
from deploy.secrets import listed
from deploy.tools import kubectl

TIMEOUT_S = 60
KEDA = "scaledobjects.keda.sh"
# a worker that is replaced may take its whole grace period of 120 s, and its successor as long to start
ROLLOUT_TIMEOUT_S = 300


def up(folder: Path) -> None:
    """Apply, and wait until it runs."""
    cluster.check()
    if not cluster.has("crd", KEDA):
        raise Unusable("The cluster has no KEDA: run `make secrets platform` first.")
    show(kubectl(), "apply", "--kustomize", folder, timeout_s=ROLLOUT_TIMEOUT_S)
    for each in _objects(folder, "Deployment"):
        wait = ("rollout", "status", f"deployment/{_name(each)}", _where(each), f"--timeout={ROLLOUT_TIMEOUT_S}s")
        show(kubectl(), *wait, timeout_s=ROLLOUT_TIMEOUT_S + TIMEOUT_S)
    for each in _objects(folder, "ScaledObject"):
        wait = ("wait", f"scaledobject/{_name(each)}", _where(each), "--for=condition=Ready", f"--timeout={TIMEOUT_S}s")
        show(kubectl(), *wait, timeout_s=2 * TIMEOUT_S)


def down(folder: Path) -> None:
    """Delete all of it but the namespaces: their Secrets hold the passwords of the broker's users.

    The namespace `data` is the platform's: its network policies protect RabbitMQ and Redis as long as these run.
    """
    cluster.check()
    # kubectl fails on kinds that the cluster does not know
    unknown = () if cluster.has("crd", KEDA) else ("ScaledObject", "TriggerAuthentication")
    rest = [each for each in _objects(folder) if each["kind"] not in {"Namespace", *unknown}]
    delete = ("delete", "--ignore-not-found", f"--timeout={ROLLOUT_TIMEOUT_S}s", "--filename=-")
    show(kubectl(), *delete, text=listed(rest), timeout_s=ROLLOUT_TIMEOUT_S + TIMEOUT_S)


def _objects(folder: Path, kind: str | None = None) -> list[dict[str, Any]]:
    objects = yaml.safe_load_all(output(kubectl(), "kustomize", folder, timeout_s=TIMEOUT_S))
    return [each for each in objects if kind in {None, each["kind"]}]


def _name(each: dict[str, Any]) -> str:
    return str(each["metadata"]["name"])


def _where(each: dict[str, Any]) -> str:
    return f"--namespace={each['metadata']['namespace']}"


def main() -> None:
    """Up or down."""
    verb, name = sys.argv[1], sys.argv[2] if sys.argv[2:] else "local"
    folder = ROOT / "kustomize" / "overlays" / name
    if not folder.is_dir():
        names = ", ".join(sorted(path.name for path in folder.parent.iterdir()))
        raise Unusable(f"There is no overlay {name}: choose one of {names} by OVERLAY=.")
    {"up": up, "down": down}[verb](folder)


if __name__ == "__main__":
    command_line(main)
