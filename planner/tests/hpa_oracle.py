"""Runs scenarios with the HPA controller of Kubernetes, built once from oracle/, and returns the desired replicas."""

import fcntl
import hashlib
import json
import os
import shutil
import stat
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).with_name("oracle")
# without Go's build cache it compiles a third of Kubernetes: three minutes on two idle cores
BUILD_TIMEOUT_S = 1200
RUN_TIMEOUT_S = 300


def answers(scenarios: list[dict[str, Any]], folder: Path) -> list[dict[str, Any]]:
    """For each scenario its `desired` replicas, or why the API considers its spec `invalid`."""
    asked, answered = folder / "asked.json", folder / "answered.json"
    asked.write_text(json.dumps(scenarios))
    names = {"ORACLE_IN": str(asked), "ORACLE_OUT": str(answered)}
    command = [str(_program()), "-test.run=TestScenarios", f"-test.timeout={RUN_TIMEOUT_S}s"]
    done = subprocess.run(command, env=os.environ | names, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    found: list[dict[str, Any]] = json.loads(answered.read_text())
    return found


def _program() -> Path:
    """The program, built if these sources are not cached. Without Go, tests are skipped, or fail in CI."""
    sources = sorted([*FOLDER.glob("*.go"), *FOLDER.glob("go.*")])
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()[:12]
    program = _cache() / f"hpa-oracle-{digest}"
    with _locked(program.with_name(f".{program.name}.lock")):
        if not program.exists():
            _build(program)
    return program


def _cache() -> Path:
    named = os.environ.get("SLUICE_CACHE")
    folder = Path(named or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sluice").absolute()
    folder.mkdir(mode=0o755, parents=True, exist_ok=True)
    if folder.stat().st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        pytest.fail(f"Others may write to {folder}, whose programs these tests run: chmod go-w it.")
    if folder.stat().st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        pytest.fail(f"Others may write to {folder}, whose programs these tests run: chmod go-w it.")
    return folder


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold a lock, so that parallel test processes build the program once."""
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _build(program: Path) -> None:
    go = shutil.which("go")
    if go is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)("The HPA controller needs Go >= 1.26 to be built.")
    unfinished = program.with_name(f"{program.name}.unfinished")
    # -vet=off: vet would load all of Kubernetes once more
    command = [go, "test", "-c", "-vet=off", "-o", str(unfinished), "."]
    done = subprocess.run(command, cwd=FOLDER, capture_output=True, text=True, timeout=BUILD_TIMEOUT_S, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    unfinished.replace(program)
