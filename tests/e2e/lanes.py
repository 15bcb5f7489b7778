"""The order of the tests, and two lanes of them that run beside each other, each on a cluster of its own.

`make e2e` gives each lane a process. Parts of the tests, and all of them on somebody's cluster, are one process in the
same order.
"""

import os
from pathlib import Path

from tests.e2e.cluster.state import STATE

# They leave the workers and their queue alone, or have a cluster of their own: they run while a burst takes 450 s under
# the original's numbers.
BESIDE = ("cluster", "admission", "network", "keda", "flux")
ORDER = ("local", "ingress", "scaling", *BESIDE, "original", "rollout", "load", "trouble", "fallback")
# Beside the original's burst the first lane has the other one, which is measured: these wait until it is drained.
PATIENT = ("keda", "flux")
FIRST, SECOND = "first", "second"
LANES = dict.fromkeys(ORDER, FIRST) | dict.fromkeys((*BESIDE, "original", "trouble", "fallback"), SECOND)


def apart() -> bool:
    """Whether this process has one of the lanes, and another process the other."""
    return "PYTEST_XDIST_WORKER" in os.environ


def state(lane: str) -> Path:
    """The folder of a lane's cluster. The first's is that of `make cluster` too."""
    return STATE if lane == FIRST else STATE.with_name(f"{STATE.name}-{lane}")
