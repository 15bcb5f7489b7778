"""The worker of `tests.harness.worker`, slow at one thing: the end of a child is heard, the child stays in the pool.

So it is for a moment on a busy machine, between the end of a process and its exit status.
"""

import logging
from typing import Any

from celery.concurrency.asynpool import AsynPool

from tests.harness.worker import app

__all__ = ["app"]


def _hear(self: Any, hub: object, process: object) -> None:
    self._untrack_child_process(process, hub)
    logging.getLogger(__name__).warning("a child ended")


AsynPool._event_process_exit = _hear  # noqa: SLF001 - there is no other way to be slow
# Nothing else looks for ended children meanwhile, neither by the clock nor where a connection is lost.
AsynPool.timers = {}
AsynPool.flush = lambda _: None
