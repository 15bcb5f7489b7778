"""Refuses tasks and worker options that name a queue outside of the contract."""

from collections.abc import Iterable

from apps.contract import topology
from apps.contract.tasks import Registry

_NAMES = ", ".join(topology.WORK_QUEUES)
_ADD = 'add it to WORK_QUEUES in apps/contract/topology.py as docs/tasks.md says under "A new queue"'


def require_queues(tasks: Registry) -> None:
    """Raise SystemExit with one sentence if a task's queue is not declared: its messages would be unroutable."""
    for spec in tasks.values():
        if spec.queue not in topology.WORK_QUEUES:
            raise SystemExit(
                f"Task {spec.name} waits in the queue {spec.queue!r}, which is not declared: {_ADD}, or put the task "
                f"into one of the existing queues ({_NAMES})."
            )


def require_selectable(queues: Iterable[str], option: str) -> None:
    """Raise SystemExit with one sentence if a worker's option selects a queue that is not declared."""
    for name in queues:
        if name not in topology.WORK_QUEUES:
            raise SystemExit(
                f"{option} names the queue {name!r}, which is not declared: use one of {_NAMES}, or {_ADD}."
            )
