"""A copy of the project's code in its own folder, and `make up` in it."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import psutil

from tests.harness.system import ROOT, until


def copy_apps(folder: Path) -> None:
    """Copy apps/, and replace its tasks by those of tests/harness/replacement_family."""
    ignored = shutil.ignore_patterns("__pycache__")
    tasks = folder / "apps" / "tasks"
    shutil.copytree(ROOT / "apps", folder / "apps", ignore=ignored)
    for contract in tasks.glob("*/contract.py"):
        shutil.rmtree(contract.parent)
    shutil.copytree(ROOT / "tests" / "harness" / "replacement_family", tasks / "family", ignore=ignored)


class Clone:
    """Runs `python -m ops.up`, which `make up` calls once everything is installed, and keeps its output."""

    def __init__(self, folder: Path, port: str, **environment: str) -> None:
        self.folder = folder
        copy_apps(folder)
        shutil.copytree(ROOT / "ops", folder / "ops", ignore=shutil.ignore_patterns("__pycache__"))
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("CELERY", "RABBITMQ"))}
        # No Docker engine: the test covers the programs of this machine, which need no download.
        base = {"API_PORT": port, "DOCKER_HOST": f"unix://{folder}/none"}
        self.environment = {**kept, **base, **environment}
        self.output = folder / "output"
        self._process: subprocess.Popen[bytes] | None = None

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run another command and wait for its end, at most a minute."""
        return subprocess.run(
            [sys.executable, "-m", *command],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def up(self) -> psutil.Process:
        """Start `ops.up`, and return its process, the supervisor."""
        with self.output.open("wb") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "ops.up"],
                cwd=self.folder, env=self.environment, stdout=output, stderr=subprocess.STDOUT,
            )  # fmt: skip
        return psutil.Process(self._process.pid)

    def says(self, text: str) -> None:
        """Wait until the text is in the output; fail at once if the process ended before."""
        until(lambda: text in self.printed or self._ended, 90, f"{text!r} in the output")
        assert text in self.printed

    def exit_status(self, deadline_s: float = 60) -> int:
        """Wait for the end, and return the exit status."""
        assert self._process is not None
        return self._process.wait(deadline_s)

    def end(self) -> None:
        """Stop the process if it still runs, so that it does not disturb the next test."""
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            self._process.wait(60)

    @property
    def printed(self) -> str:
        """The output so far."""
        return self.output.read_text()

    @property
    def _ended(self) -> bool:
        return self._process is not None and self._process.poll() is not None


def left(processes: list[psutil.Process]) -> list[psutil.Process]:
    """Return the processes that still run."""
    return [process for process in processes if _runs(process)]


def _runs(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
