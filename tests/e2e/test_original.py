"""The same burst under the original's numbers, whose two workers take it alone."""

import json
import os
import platform
from collections.abc import Callable

import psutil
import pytest

from tests.e2e.burst import ALONE_S, TASKS, Aside
from tests.e2e.curve import SERVICE_S
from tests.e2e.told import FOLDER, Told


def test_load_overlay_drains_at_least_four_times_sooner(
    original: Aside, request: pytest.FixtureRequest, record_property: Callable[[str, object], None]
) -> None:
    assert original.states() == ["SUCCESS"]
    original_s = Told("original").drain_s()
    # only now: if there is none, the one that runs would go on under the tests after this
    load_s: float = request.getfixturevalue("scaled_drain_s")
    # by what two workers take at least: nothing that runs beside them may make the load overlay look better
    sooner = min(ALONE_S, original_s) / load_s
    machine = {
        "cores": os.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "kernel": platform.release(),
    }
    figures = {
        "machine": machine, "tasks": TASKS, "service_s": SERVICE_S,
        "original_drain_s": original_s, "load_drain_s": load_s, "times_sooner": round(sooner, 2),
    }  # fmt: skip
    (FOLDER / "scaling.json").write_text(json.dumps(figures, indent=2) + "\n")
    record_property("900 tasks of 1 s, seconds to drain", f"{original_s:.0f} and {load_s:.0f}")
    assert sooner >= 4
