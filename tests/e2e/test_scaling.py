"""KEDA with real workers: a burst takes them from 2 to 30 and back, and drains sooner than the original's settings."""

import json
import os
import platform
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from deploy.run import ROOT
from tests.e2e import objects
from tests.e2e.curve import SERVICE_S, Recorder
from tests.e2e.system import System

TASKS = 900
MINIMUM, MAXIMUM = 2, 30
FOLDER = ROOT / "build" / "e2e"
CURVE = FOLDER / "curve.json"
# two workers alone
ALONE_S = TASKS * SERVICE_S / MINIMUM
DRAIN_TIMEOUT_S = 2 * ALONE_S
SCALE_DOWN_TIMEOUT_S = 300
PICTURE_TIMEOUT_S = 120


@dataclass(frozen=True)
class Burst:
    """What became of the tasks that came at once."""

    recorder: Recorder
    drain_s: float
    states: set[str]
    effects: dict[str, int]

    @property
    def replicas_max(self) -> float:
        return max(sample["ready"] for sample in self.recorder.samples)

    def figures(self) -> dict[str, float]:
        return {"drain_s": round(self.drain_s, 1), "replicas_max": self.replicas_max}


def burst(system: System, overlay: str) -> Burst:
    """Apply an overlay, post everything at once, and see it through until the replicas are what they were."""
    objects.apply(objects.OVERLAYS / overlay)
    objects.rolled_out(objects.WORKER)
    objects.settled(objects.WORKER, MINIMUM)
    system.forget()
    with Recorder(system) as recorder:
        began_s = recorder.now_s
        ids = system.post([f"{overlay}-{number}" for number in range(TASKS)])
        recorder.came(TASKS, began_s)
        system.drained(TASKS, DRAIN_TIMEOUT_S)
        drain_s = recorder.now_s - began_s
        objects.settled(objects.WORKER, MINIMUM, SCALE_DOWN_TIMEOUT_S)
        if overlay == "load":
            recorder.write(CURVE)
    return Burst(recorder, drain_s, system.states(ids, timeout_s=60), system.effects())


@pytest.fixture(scope="module")
def scaled(load: System) -> Burst:
    """Under the load overlay."""
    return burst(load, "load")


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


def test_load_overlay_drains_at_least_four_times_sooner(
    scaled: Burst, load: System, record_property: Callable[[str, object], None]
) -> None:
    original = burst(load, "original")
    assert original.states == {"SUCCESS"}
    sooner = original.drain_s / scaled.drain_s
    machine = {
        "cores": os.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "kernel": platform.release(),
    }
    figures = {
        "machine": machine, "tasks": TASKS, "service_s": SERVICE_S,
        "original": original.figures(), "load": scaled.figures(), "times_sooner": round(sooner, 2),
    }  # fmt: skip
    (FOLDER / "scaling.json").write_text(json.dumps(figures, indent=2) + "\n")
    record_property("900 tasks of 1 s, seconds to drain", f"{original.drain_s:.0f} and {scaled.drain_s:.0f}")
    assert sooner >= 4
