"""The calculations of the bench: ratios, bars and the attribution of samples."""

import pytest

from bench import figures, profile
from bench.accept import there_and_back


def test_ratio_is_calculated_per_round() -> None:
    found = figures.ratios([10, 30, 20], [10, 10, 40])
    assert found == {"median": 1, "min": 0.5, "max": 3, "rounds": 3}


@pytest.mark.parametrize(
    ("key", "value", "met"),
    [
        ("accept_c64_vs_empty", 1.4, True),
        ("accept_c64_vs_empty", 1.39, False),
        ("accept_cpu_vs_empty", 0.75, True),
        ("accept_cpu_vs_empty", 0.76, False),
        ("rss_idle_mb", 1e9, True),
    ],
)
def test_bar_is_met_or_missed(key: str, value: float, met: bool) -> None:
    assert figures.BARS[key].met(value) is met
    (line,) = figures.lines({key: figures.summary([value])})[2:]
    assert ("missed" in line) is not met


def test_variants_run_forward_and_backward() -> None:
    assert "".join(there_and_back("ABC")) == "ABCCBA"


def test_table_has_a_row_per_figure_in_order() -> None:
    rows = figures.lines({key: figures.summary([1.0]) for key in reversed(list(figures.BARS))})
    assert [row.split("|")[1].strip() for row in rows[2:]] == list(figures.BARS)


def test_sample_is_attributed_to_its_innermost_part() -> None:
    stacks = [
        "main (/x/uvicorn/main.py:1);call (/x/apps/api/fast_path.py:2);dumps (/usr/lib/json.py:3) 6",
        "send (/x/uvicorn/protocols/http/httptools_impl.py:1);write (/x/apps/api/http.py:2) 10",
        "main (/x/uvicorn/main.py:1);frames (/x/apps/amqp/template.py:2);pack (/usr/lib/struct.py:3) 2",
        "run (/x/uvicorn/server.py:1) 2",
        "wait (/usr/lib/threading.py:1) 90",
    ]
    assert [row.split(" | ")[1:] for row in profile.table(stacks, 50.0)[2:]] == [
        ["50%", "25.0 |"],
        ["30%", "15.0 |"],
        ["10%", "5.0 |"],
        ["10%", "5.0 |"],
        ["100%", "50.0 |"],
    ]
