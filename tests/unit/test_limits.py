"""Time limits inside a worker's child."""

import signal
import subprocess
import sys
import time

import pytest
from celery.exceptions import SoftTimeLimitExceeded

from apps.worker.limits import LIMIT_SIGNAL, time_limits


def test_soft_limit_is_raised_inside_the_block() -> None:
    with pytest.raises(SoftTimeLimitExceeded), time_limits(0.05, 5):
        time.sleep(5)


def test_block_that_ends_in_time_is_left_alone() -> None:
    with time_limits(None, 0.1):
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
    done = subprocess.run([sys.executable, "-c", block], check=False, timeout=20)
    assert done.returncode == -signal.Signals[LIMIT_SIGNAL]
