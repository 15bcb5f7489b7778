"""The two lanes of the tests on a cluster: every part is in one, and the second hears of the first's burst."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Timer

import pytest

from tests.e2e import __main__ as program
from tests.e2e import lanes, told
from tests.e2e.told import Told

DRAIN_S = 66.1
# passes only where both lanes run at once, and each knows that it has another beside it
MEETING = """
from ops.servers.child import until
from pathlib import Path
from tests.e2e import lanes

def test_meet():
    assert lanes.apart()
    Path("{folder}/{mine}").touch()
    until(Path("{folder}/{other}").exists, 60, "the other lane")

def test_end():
    {end}
"""


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
def later(burst: Told) -> Iterator[Callable[[float | None], None]]:
    """Tells it a moment after the test has begun to wait."""
    timers: list[Timer] = []

    def tell(drain_s: float | None) -> None:
        timers.append(Timer(0.2, burst.tell, [drain_s]))
        timers[-1].start()

    yield tell
    for timer in timers:
        timer.join()


def test_seconds_are_waited_for(burst: Told, later: Callable[[float | None], None]) -> None:
    later(DRAIN_S)
    assert burst.drain_s() == DRAIN_S


def test_burst_that_failed_is_over_and_has_none(burst: Told, later: Callable[[float | None], None]) -> None:
    later(None)
    burst.over()
    with pytest.raises(AssertionError, match="has failed"):
        burst.drain_s()


def test_what_an_earlier_run_told_is_forgotten(burst: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    burst.tell(DRAIN_S)
    burst.forget()
    monkeypatch.setattr(told, "TIMEOUT_S", 0)
    with pytest.raises(TimeoutError, match="the burst under the overlay load"):
        burst.drain_s()


@pytest.mark.usefixtures("burst")  # else that of a run would be forgotten
@pytest.mark.parametrize("end", ["assert False", "import os; os.kill(os.getpid(), 9)"], ids=["fails", "is killed"])
@pytest.mark.skipif(not shutil.which("setpriv"), reason="clusters of our own, and so lanes, are only had on Linux")
def test_lanes_run_at_once_and_all_is_well_only_if_both_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], end: str
) -> None:
    for mine, other in (("one", "two"), ("two", "one")):
        test = MEETING.format(folder=tmp_path, mine=mine, other=other, end=end if mine == "one" else "pass")
        (tmp_path / f"test_{mine}.py").write_text(test)
    monkeypatch.setattr(program, "HERE", tmp_path)
    monkeypatch.setattr(lanes, "LANES", {"first": ("one",), "second": ("two",)})
    with pytest.raises(SystemExit) as ended:
        program.main()
    assert ended.value.code == 1
    first, second = capsys.readouterr().out.splitlines()[-2:]
    assert first.startswith("first ")
    assert second.startswith("second 2 passed")
