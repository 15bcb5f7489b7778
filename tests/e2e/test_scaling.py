"""KEDA with real workers: a burst takes them from 2 to 30 and back."""

import subprocess
import sys
from pathlib import Path

from ops.command import ROOT
from tests.e2e import objects
from tests.e2e.burst import CURVE, MAXIMUM, MINIMUM, TASKS, Burst
from tests.e2e.told import FOLDER

PICTURE_TIMEOUT_S = 120


def test_burst_takes_the_workers_to_the_maximum_and_back(scaled: Burst) -> None:
    samples = scaled.recorder.samples
    assert {MINIMUM <= sample["desired"] <= MAXIMUM for sample in samples} == {True}
    assert max(sample["ready"] for sample in samples) == MAXIMUM
    assert (samples[-1]["ready"], samples[-1]["desired"], samples[-1]["depth"]) == (MINIMUM, MINIMUM, 0)


def test_every_task_of_the_burst_succeeds_once(scaled: Burst) -> None:
    assert scaled.states == {"SUCCESS"}
    assert scaled.effects == {f"load-{number}": 1 for number in range(TASKS)}


def test_the_curve_can_be_replayed_and_drawn(scaled: Burst) -> None:  # noqa: ARG001 - it wrote the curve
    picture = CURVE.with_suffix(".png")
    picture.unlink(missing_ok=True)
    sluice = Path(sys.executable).parent / "sluice"
    command = [str(sluice), "replay", str(objects.OVERLAYS / "load"), str(CURVE), "--png", str(picture)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PICTURE_TIMEOUT_S, check=False, cwd=ROOT)
    assert picture.exists(), done.stdout + done.stderr
    (FOLDER / "replay.txt").write_text(done.stdout)
