"""Two commits are compared pairwise, with a confidence interval that tells whether they differ."""

from typing import Any

import pytest

from loadtest import ab


def report(finished_per_s: float, ms: float) -> dict[str, Any]:
    percentiles = {"p50": ms, "p95": 3 * ms}
    part = {"cpu_ms_per_task": ms / 10, "rss_max_mb": 100.0}
    return {
        "holds": [{"finished_per_s": finished_per_s}],
        "latency_ms": {"accept": {"system": percentiles}, "result": {"system": percentiles}},
        "parts": {"API": part, "workers": part, "Locust": {"cpu_ms_per_task": 99, "rss_max_mb": 99}},
    }


def rows_of(ones: list[dict[str, Any]], others: list[dict[str, Any]]) -> dict[str, str]:
    return {line.split(" | ")[0].removeprefix("| "): line for line in ab.lines(ones, others)}


def test_ratio_is_the_geometric_mean_of_the_pairs() -> None:
    mean, low, high = ab.ratio([10, 20, 40], [20, 40, 80])
    assert (mean, low, high) == pytest.approx((2, 2, 2))


def test_interval_uses_the_t_distribution() -> None:
    # Logarithms of the ratios: -ln 2, 0, ln 2. Standard deviation ln 2; t is 4.303 for two degrees of freedom.
    mean, low, high = ab.ratio([1, 1, 1], [0.5, 1, 2])
    assert mean == pytest.approx(1)
    assert high == pytest.approx(1 / low)
    assert high == pytest.approx(2 ** (4.303 / 3**0.5), rel=1e-3)


def test_table_marks_differences_and_excludes_locust() -> None:
    ones = [report(100, ms) for ms in (10, 11, 9, 10)]
    others = [report(100, ms) for ms in (20, 22.1, 18, 20)]
    rows = rows_of(ones, others)
    assert rows["accepting, p95"].endswith("| differs |")
    assert not rows["finished a second"].endswith("| differs |")
    assert rows["CPU a task, without Locust"].split(" | ")[1] == "2"


def test_non_positive_values_have_no_ratio() -> None:
    rows = rows_of([report(100, 10), report(100, -1)], [report(100, 10), report(100, 11)])
    assert rows["accepting, p50"] == "| accepting, p50 | 4.5 | 10.5 | - | - | |"
    assert rows["finished a second"].endswith("| 1.000 | 1.000 to 1.000 |  |")
