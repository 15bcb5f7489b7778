"""The worker of `tests.harness.worker`, which notices a child's end, but does not remove the child from its pool.

On a busy machine this state exists for a moment, between the end of a process and its exit status.
"""

import logging
from typing import Any

from celery.concurrency.asynpool import AsynPool

from tests.harness.worker import app

__all__ = ["app"]


def _hear(self: Any, hub: object, process: object) -> None:
    self._untrack_child_process(process, hub)
    logging.getLogger(__name__).warning("a child ended")


AsynPool._event_process_exit = _hear  # noqa: SLF001 - there is no public way to delay it
# Disable the two other places that look for ended children: the timer, and the flush after a lost connection.
AsynPool.timers = {}
AsynPool.flush = lambda _: None
