"""The order of the tests, and two lanes of them that run beside each other, each on a cluster of its own.

`python -m tests.e2e` gives each lane a process. Parts of the tests, and all of them on somebody's cluster, are one
process in the same order.
"""

import os

# They leave the workers and their queue alone, or have a cluster of their own: they run while a burst takes 450 s under
# the original's numbers.
BESIDE = ("cluster", "admission", "network", "existing", "keda", "flux")
ORDER = ("local", "ingress", "scaling", *BESIDE, "original", "rollout", "load", "trouble", "fallback")
LANES = {
    "first": ("local", "ingress", "scaling", "rollout", "load"),
    "second": (*BESIDE, "original", "trouble", "fallback"),
}
# Beside the original's burst the first lane has the other one, which is measured: these wait until it is drained.
PATIENT = ("existing", "keda", "flux")
VARIABLE = "E2E_LANE"


def apart() -> bool:
    """Whether this process has one lane, and another process the other."""
    return VARIABLE in os.environ
