"""A burst scales real workers by KEDA from 2 to 30 and back, and ends sooner than with two workers."""

import json
import os
import platform as machine
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from ops.command import ROOT
from tests.e2e import burst, objects
from tests.e2e.burst import ALONE_S, FOLDER, MAXIMUM, MINIMUM, TASKS
from tests.e2e.curve import SERVICE_S, Recorder
from tests.e2e.provider import Provider
from tests.e2e.system import System

CURVE = FOLDER / "curve.json"
SCALE_DOWN_TIMEOUT_S = 300
PICTURE_TIMEOUT_S = 120


@dataclass(frozen=True)
class Scaled:
    """The recorded scaling of a burst, and how its tasks ended."""

    samples: list[dict[str, float]]
    drain_s: float
    states: set[str]
    effects: dict[str, int]


@pytest.fixture(scope="module")
def scaled(system: System, platform: Provider) -> Scaled:
    """Post a burst under the load overlay, and record the scaling until two workers are left."""
    burst.rest(system, "load")
    with Recorder(system) as recorder:
        with burst.measuring():
            began_s = recorder.now_s
            ids = burst.post(system, "load")
            recorder.came(TASKS, began_s)
            system.drained(TASKS, burst.DRAIN_TIMEOUT_S)
            drain_s = round(recorder.now_s - began_s, 1)
        objects.settled(objects.WORKER, MINIMUM, SCALE_DOWN_TIMEOUT_S)
    recorder.write(CURVE, platform.hpa_sync_s)
    return Scaled(recorder.samples, drain_s, system.states(ids, timeout_s=60), system.effects())


def test_burst_scales_the_workers_to_the_maximum_and_back(scaled: Scaled) -> None:
    samples = scaled.samples
    assert {MINIMUM <= sample["desired"] <= MAXIMUM for sample in samples} == {True}
    assert max(sample["ready"] for sample in samples) == MAXIMUM
    assert (samples[-1]["ready"], samples[-1]["desired"], samples[-1]["depth"]) == (MINIMUM, MINIMUM, 0)


def test_every_task_of_the_burst_succeeds_once(scaled: Scaled) -> None:
    assert scaled.states == {"SUCCESS"}
    assert scaled.effects == {f"load-{number}": 1 for number in range(TASKS)}


def test_burst_drains_four_times_faster_than_with_two_workers(
    scaled: Scaled, record_property: Callable[[str, object], None]
) -> None:
    # test_original.py shows that two workers finish the burst without scaling
    sooner = ALONE_S / scaled.drain_s
    host = {
        "cores": os.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "kernel": machine.release(),
    }
    figures = {
        "machine": host, "tasks": TASKS, "service_s": SERVICE_S,
        "alone_s": ALONE_S, "drain_s": scaled.drain_s, "times_sooner": round(sooner, 2),
    }  # fmt: skip
    (FOLDER / "scaling.json").write_text(json.dumps(figures, indent=2) + "\n")
    record_property("seconds to drain 900 tasks of 1 s under the load overlay", scaled.drain_s)
    assert sooner >= 4


@pytest.mark.usefixtures("scaled")  # the fixture writes the curve
def test_curve_can_be_replayed_and_drawn() -> None:
    picture = CURVE.with_suffix(".png")
    picture.unlink(missing_ok=True)
    sluice = Path(sys.executable).parent / "sluice"
    command = [str(sluice), "replay", str(objects.OVERLAYS / "load"), str(CURVE), "--png", str(picture)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PICTURE_TIMEOUT_S, check=False, cwd=ROOT)
    assert picture.exists(), done.stdout + done.stderr
    (FOLDER / "replay.txt").write_text(done.stdout)
