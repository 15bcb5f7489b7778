"""The two lanes of the tests on a cluster: every part is in one, and the second hears of the first's burst."""

from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Timer

import pytest

from tests.e2e import lanes, told
from tests.e2e.told import Figures, Told

FIGURES = {"drain_s": 66.1, "replicas_max": 30.0}


@pytest.fixture
def burst(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Told:
    monkeypatch.setattr(told, "FOLDER", tmp_path / "e2e")
    return Told("load")


def test_every_part_has_its_place() -> None:
    there = sorted(path.stem.removeprefix("test_") for path in Path(lanes.__file__).parent.glob("test_*.py"))
    assert sorted(lanes.ORDER) == there
    assert sorted(part for lane in lanes.LANES.values() for part in lane) == there


def test_bursts_are_in_different_lanes_and_what_waits_is_beside_the_original() -> None:
    assert "scaling" in lanes.LANES["first"]
    assert {"original", *lanes.PATIENT} <= set(lanes.LANES["second"])


@pytest.fixture
def later(burst: Told) -> Iterator[Callable[[Figures | None], None]]:
    """Tells it a moment after the test has begun to wait."""
    timers: list[Timer] = []

    def tell(figures: Figures | None) -> None:
        timers.append(Timer(0.2, burst.tell, [figures]))
        timers[-1].start()

    yield tell
    for timer in timers:
        timer.join()


def test_figures_are_waited_for(burst: Told, later: Callable[[Figures | None], None]) -> None:
    later(FIGURES)
    assert burst.figures() == FIGURES


def test_burst_that_failed_is_over_and_has_no_figures(burst: Told, later: Callable[[Figures | None], None]) -> None:
    later(None)
    burst.over()
    with pytest.raises(AssertionError, match="has failed"):
        burst.figures()


def test_what_an_earlier_run_told_is_forgotten(burst: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    burst.tell(FIGURES)
    burst.forget()
    monkeypatch.setattr(told, "TIMEOUT_S", 0)
    with pytest.raises(TimeoutError, match="the burst under the overlay load"):
        burst.figures()
