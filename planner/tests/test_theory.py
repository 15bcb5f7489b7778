"""With a fixed number of workers, the simulated mean wait is that of queueing theory."""

import math

import numpy as np
import pytest

from sluice_planner.cluster_settings import Cluster
from tests.overlays import outcome, workload

REPLICATIONS = 20
# Student's t for 99% confidence at 19 degrees of freedom
T_99 = 2.861


def waits_s(servers: int, rate: float, service: str, tasks: int) -> tuple[float, float]:
    """The mean wait over replications after a warm-up, and half the width of its confidence interval."""
    fixed = workload(minReplicaCount=servers, maxReplicaCount=servers)
    duration_s = tasks / rate
    means = [
        outcome(
            fixed,
            f"{rate}/s",
            service,
            Cluster(sync_s=3600),
            duration_s=duration_s,
            warm_up_s=duration_s / 10,
            seed=seed,
        ).waits.mean_s
        for seed in range(REPLICATIONS)
    ]
    return float(np.mean(means)), T_99 * float(np.std(means, ddof=1)) / math.sqrt(REPLICATIONS)


def erlang_c(servers: int, load: float) -> float:
    """The probability that a task has to wait."""
    terms = [load**number / math.factorial(number) for number in range(servers)]
    last = load**servers / math.factorial(servers) / (1 - load / servers)
    return last / (sum(terms) + last)


@pytest.mark.parametrize(("servers", "utilization"), [(1, 0.5), (1, 0.8), (4, 0.8), (30, 0.9)])
def test_mmc(servers: int, utilization: float) -> None:
    mean_s = 2.0
    rate = utilization * servers / mean_s
    expected = erlang_c(servers, rate * mean_s) * mean_s / (servers - rate * mean_s)
    measured, half = waits_s(servers, rate, f"exponential:{mean_s}", 100_000)
    assert half < 0.1 * expected
    assert measured == pytest.approx(expected, abs=half)


@pytest.mark.parametrize(
    ("service", "variation"), [("2", 0.0), ("lognormal:2,cv=0.5", 0.5), ("lognormal:2,cv=1.5", 1.5)]
)
def test_md1_and_mg1(service: str, variation: float) -> None:
    """Pollaczek-Khinchine formula: with constant service times, waits are half as long as with exponential ones."""
    utilization, mean_s = 0.7, 2.0
    expected = utilization * mean_s * (1 + variation**2) / (2 * (1 - utilization))
    measured, half = waits_s(1, utilization / mean_s, service, 60_000)
    assert half < 0.1 * expected
    assert measured == pytest.approx(expected, abs=half)
