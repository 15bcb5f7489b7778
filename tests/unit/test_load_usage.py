"""The CPU and memory of a run whose processes start and end."""

import pytest

from loadtest import usage
from loadtest.sample import Sample, Usage


def samples(*workers: dict[str, float]) -> list[tuple[float, Sample]]:
    """Return one sample per second with the CPU time (s) of each worker."""
    return [
        (float(at_s), Sample(0, 0, {"workers": {name: Usage(cpu_s, 10.0) for name, cpu_s in each.items()}}))
        for at_s, each in enumerate(workers)
    ]


def test_part_keeps_the_cpu_time_of_an_ended_process_but_not_its_memory() -> None:
    parts = usage.by_part(samples({"a": 1.0, "b": 1.0}, {"b": 1.5}, {"b": 1.5, "c": 0.2}))
    assert [each["workers"] for _, each in parts] == [Usage(2.0, 20.0), Usage(2.5, 10.0), Usage(2.7, 20.0)]
    assert usage.of_parts(parts, 10)["workers"] == {"cores": 0.35, "cpu_ms_per_task": 70.0, "rss_max_mb": 20.0}


def test_usage_of_a_process_counts_only_its_lifetime() -> None:
    busy = [{"old": 0.5 * second} for second in range(10)]
    both = [{"new": 0.1 * second} for second in range(5)]
    old, new = usage.of_processes(samples(*busy, *both))
    assert (old["process"], old["cores"]["mean"]) == ("old", 0.5)
    assert (new["process"], new["cores"]["mean"]) == ("new", 0.1)


def test_minimum_and_maximum_are_of_whole_windows_of_a_rarely_updated_counter() -> None:
    # a kubelet that updates its counter every ten seconds; the worker is idle, uses one core, and is idle again
    told = [0.0] * 10 + [0.0] * 10 + [0.1] * 10 + [10.1] * 10 + [10.2] * 10
    (found,) = usage.of_processes(samples(*({"worker": cpu_s} for cpu_s in told)))
    assert found["cores"] == pytest.approx({"min": 0.01, "mean": 0.208, "max": 1.0})
    assert found["rss_mb"] == {"min": 10.0, "mean": 10.0, "max": 10.0}
