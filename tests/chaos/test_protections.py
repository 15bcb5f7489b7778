"""Each protection is needed: a short run without it loses or repeats something, and the checker finds it.

The same run with the protection has no findings, so the findings come from the missing protection.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.harness.system import ROOT

# protection -> kinds of findings that a run without it must report
FOLLOWS = {
    "confirms": {"lost"},
    "mandatory": {"lost"},
    "late-acks": {"stuck"},
    "reject-on-lost": {"stuck"},
    "retried-storing": {"wrong-end"},
    "recorder": {"stuck", "left-over"},
    "claim": {"duplicate"},
    "end-guard": {"ended-twice"},
    "quorum": {"lost"},
    "key-before-publish": {"two-ids"},
    "aof": {"lost"},
}
RUN_TIMEOUT_S = 300


@pytest.fixture(autouse=True)
def root() -> None:
    if os.geteuid() != 0 and not os.environ.get("CI"):
        pytest.skip("faults are injected in separate network namespaces, which needs root: run this as root")


def _run(folder: Path, scenario: str, *options: str) -> tuple[int, dict[str, Any]]:
    done = subprocess.run(
        [sys.executable, "-m", "tests.chaos", scenario, "--folder", str(folder / "run"), *options],
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=RUN_TIMEOUT_S,
    )  # fmt: skip
    assert done.returncode in {0, 1}, done.stdout + done.stderr
    report: dict[str, Any] = json.loads((folder / "run/report.json").read_text())
    return done.returncode, report


@pytest.mark.timeout(RUN_TIMEOUT_S + 20)
@pytest.mark.parametrize("protection", FOLLOWS)
def test_checker_finds_what_a_run_without_the_protection_loses_or_repeats(protection: str, tmp_path: Path) -> None:
    status, report = _run(tmp_path, protection, "--without", protection)
    assert status == 1
    assert FOLLOWS[protection] <= set(report["findings"]), report["examples"]


@pytest.mark.timeout(RUN_TIMEOUT_S + 20)
@pytest.mark.parametrize("protection", FOLLOWS)
def test_run_with_the_protection_has_no_findings(protection: str, tmp_path: Path) -> None:
    status, report = _run(tmp_path, protection)
    assert (status, report["findings"]) == (0, {}), report["examples"]
    assert report["accepted"] > 50
