"""Time limits of a task, counted from the start of its function to its end.

Celery's own limits run from the moment the child got the message: a Redis outage, in which `begin` or `end` waits,
would count, and turn an accepted task into a FAILURE. Here the child's own alarm clock ends it, whatever it does.
"""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from celery.exceptions import SoftTimeLimitExceeded

# How Celery names the end of a child whose alarm clock rang.
LIMIT_SIGNAL = "SIGALRM"


@contextmanager
def time_limits(soft_s: float | None, hard_s: float) -> Iterator[None]:
    """Raise SoftTimeLimitExceeded inside the block after `soft_s`; let the kernel end the process after `hard_s`.

    A thread cannot be ended from outside: in a pool of threads the limits do nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def on_soft(*_: object) -> None:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_REAL, hard_s - (soft_s or 0))
        raise SoftTimeLimitExceeded(soft_s)

    signal.signal(signal.SIGALRM, on_soft if soft_s else signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, soft_s or hard_s)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
