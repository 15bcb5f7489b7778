"""How the bench counts: what a figure is made of, and when it is missed."""

import pytest

from bench import figures, profile
from bench.accept import there_and_back


def test_ratio_is_taken_round_by_round() -> None:
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
def test_bar_is_met_on_its_side(key: str, value: float, met: bool) -> None:
    assert figures.BARS[key].met(value) is met
    (line,) = figures.lines({key: figures.summary([value])})[2:]
    assert ("missed" in line) is not met


def test_turns_go_there_and_back() -> None:
    assert "".join(there_and_back("ABC")) == "ABCCBA"


def test_table_has_a_row_for_each_figure_in_their_order() -> None:
    rows = figures.lines({key: figures.summary([1.0]) for key in reversed(list(figures.BARS))})
    assert [row.split("|")[1].strip() for row in rows[2:]] == list(figures.BARS)


def test_sample_is_booked_on_its_innermost_part() -> None:
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
