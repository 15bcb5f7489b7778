"""The HPA controller of Kubernetes itself, built once, answers what replicas it asks for in a scenario."""

import hashlib
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from deploy.run import ROOT
from deploy.tools import cache, locked

FOLDER = ROOT / "tests" / "oracle"
# cold it compiles a third of Kubernetes: three minutes on two idle cores
BUILD_TIMEOUT_S = 1200
RUN_TIMEOUT_S = 300


def answers(scenarios: list[dict[str, Any]], folder: Path) -> list[dict[str, Any]]:
    """For each scenario its `desired`, or why the API calls its spec `invalid`."""
    asked, answered = folder / "asked.json", folder / "answered.json"
    asked.write_text(json.dumps(scenarios))
    names = {"ORACLE_IN": str(asked), "ORACLE_OUT": str(answered)}
    command = [str(_program()), "-test.run=TestScenarios", f"-test.timeout={RUN_TIMEOUT_S}s"]
    done = subprocess.run(command, env=os.environ | names, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    found: list[dict[str, Any]] = json.loads(answered.read_text())
    return found


def _program() -> Path:
    """Built from this source, now if it never was. Without Go: a skip on a laptop, a failure in CI."""
    sources = sorted([*FOLDER.glob("*.go"), *FOLDER.glob("go.*")])
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()[:12]
    program = cache() / f"hpa-oracle-{digest}"
    with locked(program):
        if not program.exists():
            _build(program)
    return program


def _build(program: Path) -> None:
    go = shutil.which("go")
    if go is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)("The HPA controller needs Go >= 1.26 to be built.")
    unfinished = program.with_name(f"{program.name}.unfinished")
    # -vet: that of a test's package would load all of Kubernetes once more
    command = [go, "test", "-c", "-vet=off", "-o", str(unfinished), "."]
    done = subprocess.run(command, cwd=FOLDER, capture_output=True, text=True, timeout=BUILD_TIMEOUT_S, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    unfinished.replace(program)
