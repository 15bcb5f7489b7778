"""Time limits inside a worker's child."""

import signal
import subprocess
import sys
import time

import pytest
from celery.exceptions import SoftTimeLimitExceeded

from apps.worker.limits import LIMIT_SIGNAL, time_limits

# A hard limit that passes ends the process of the tests.
NEVER_S = 120


def test_soft_limit_is_raised_inside_the_block() -> None:
    with pytest.raises(SoftTimeLimitExceeded), time_limits(0.05, NEVER_S):
        time.sleep(NEVER_S)


def test_block_that_ends_in_time_is_left_alone() -> None:
    with time_limits(None, NEVER_S):
        pass
    assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)


@pytest.mark.parametrize("soft_s", [None, 0.1])
def test_hard_limit_ends_a_process_that_ignores_everything(soft_s: float | None) -> None:
    block = f"""
import time
from apps.worker.limits import time_limits
with time_limits({soft_s}, 0.3):
    while True:
        try:
            time.sleep(5)
        except BaseException:
            pass
"""
    done = subprocess.run([sys.executable, "-c", block], check=False, timeout=NEVER_S)
    assert done.returncode == -signal.Signals[LIMIT_SIGNAL]
