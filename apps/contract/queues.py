"""Refuses tasks and worker options that name a queue outside of the contract."""

from collections.abc import Iterable

from apps.contract import topology
from apps.contract.tasks import Registry

_NAMES = ", ".join(topology.WORK_QUEUES)


def require_queues(tasks: Registry) -> None:
    """Raise SystemExit with one sentence if a task's queue is not declared: its messages would be unroutable."""
    for spec in tasks.values():
        if spec.queue not in topology.WORK_QUEUES:
            raise SystemExit(
                f"Task {spec.name} waits in the queue {spec.queue!r}, which is not declared: add {spec.queue!r} to "
                "WORK_QUEUES in apps/contract/topology.py and a trigger for it to "
                "kustomize/base/keda/scaled-object.yaml, and run `make definitions contract-baseline`; "
                f"or put the task into one of the existing queues ({_NAMES})."
            )


def require_selectable(queues: Iterable[str], option: str) -> None:
    """Raise SystemExit with one sentence if a worker's option selects a queue that is not declared."""
    for name in queues:
        if name not in topology.WORK_QUEUES:
            raise SystemExit(
                f"{option} names the queue {name!r}, which is not declared: use one of {_NAMES}, or add {name!r} to "
                "WORK_QUEUES in apps/contract/topology.py and run `make definitions`."
            )
