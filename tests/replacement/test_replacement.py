"""A team replaces the example tasks with its own, as the README describes; every verb works and mentions no example.

The tests read the steps and the modules from the documents. They use one clone, in the order of this module.
"""

import os
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from ops.servers.ports import free_ports
from tests.harness.system import ROOT, until

# make test-unit takes 80 s on two quiet cores
VERB_TIMEOUT_S = 900
pytestmark = pytest.mark.timeout(VERB_TIMEOUT_S + 60)
OF_THE_EXAMPLES = re.compile(r"task_[12]|Test_Query", re.IGNORECASE)
# variables that make, pytest and a running system set
NOT_HANDED_ON = ("CELERY", "LOAD_", "MAKE", "MFLAGS", "PYTEST", "RABBITMQ", "SLUICE_", "VIRTUAL_ENV")


class Clone:
    """A copy of this working tree in a separate repository."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        kept = {name: value for name, value in os.environ.items() if not name.startswith(NOT_HANDED_ON)}
        # no Docker engine: the programs of this machine need no download
        self.environment = kept | {
            "API_PORT": str(free_ports(1)[0]),
            "DOCKER_HOST": f"unix://{folder}/none",
        }
        listed = self._git(ROOT, "ls-files", "-z", "--cached", "--others", "--exclude-standard").split("\0")
        for name in filter(None, listed):
            if (ROOT / name).is_file():
                path = folder / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes((ROOT / name).read_bytes())
                path.chmod((ROOT / name).stat().st_mode)
        self._git(folder, "init", "--quiet")
        self._git(folder, "add", "--all")
        person = ("-c", "user.name=a", "-c", "user.email=a@example.com")
        self._git(folder, *person, "commit", "--quiet", "--message", "Start")

    @staticmethod
    def _git(folder: Path, *arguments: str) -> str:
        return subprocess.run(
            ["git", *arguments], cwd=folder, check=True, capture_output=True, text=True, timeout=60
        ).stdout

    def run(self, command: str) -> str:
        """Run a shell command, which must succeed; returns everything that it printed."""
        done = subprocess.run(
            ["sh", "-c", command], cwd=self.folder, env=self.environment, check=False, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True, timeout=VERB_TIMEOUT_S,
        )  # fmt: skip
        assert done.returncode == 0, f"{command}\n{done.stdout[-6000:]}"
        return done.stdout

    def follow_the_documents(self) -> None:
        """Write the modules of docs/tasks.md, and run the commands of the README."""
        modules = re.findall(
            r"```python\n# (apps/tasks/\S+)\n(.*?)```", (ROOT / "docs/tasks.md").read_text(), re.DOTALL
        )
        assert {Path(name).name for name, _ in modules} == {"contract.py", "work.py"}
        for name, text in modules:
            (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
            (self.folder / name).write_text(text)
        (section,) = re.findall(
            r"^## Add a task\n(.*?)^## ", (ROOT / "README.md").read_text(), re.DOTALL | re.MULTILINE
        )
        (commands,) = re.findall(r"```console\n(.*?)```", section, re.DOTALL)
        for line in commands.splitlines():
            self.run(line)


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Clone:
    made = Clone(tmp_path_factory.mktemp("clone"))
    made.follow_the_documents()
    return made


@pytest.fixture(scope="module")
def up(clone: Clone) -> Iterator[Path]:
    """Run `make up` until its tests have ended; returns the file with its output."""
    printed = clone.folder / "up.log"
    with printed.open("w") as output:
        process = subprocess.Popen(
            ["make", "up"], cwd=clone.folder, env=clone.environment, stdout=output, stderr=subprocess.STDOUT,
            start_new_session=True,
        )  # fmt: skip
    try:
        until(lambda: "The system is up" in printed.read_text() or process.poll() is not None, 180, "make up")
        assert process.poll() is None, printed.read_text()
        yield printed
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGINT)  # same as Ctrl-C
            process.wait(120)


@pytest.mark.parametrize("verb", ["lint", "test-unit", "validate"])
def test_verb_passes_and_mentions_no_example(clone: Clone, verb: str) -> None:
    assert OF_THE_EXAMPLES.findall(clone.run(f"make {verb}")) == []


def test_up_runs_the_task_of_the_team(up: Path) -> None:
    printed = up.read_text()
    assert re.search(r"draw  SUCCESS .*<svg", printed)
    assert '{"task": "draw", "text": "https://example.com/"}' in printed  # in the call that `make up` suggests
    assert OF_THE_EXAMPLES.findall(printed) == []


@pytest.mark.parametrize("command", ["make demo", "make post", "make post TASK='draw --text abc --scale 2'"])
def test_demo_and_post_run_the_task_of_the_team(clone: Clone, up: Path, command: str) -> None:  # noqa: ARG001 - starts the system
    printed = clone.run(command)
    assert "SUCCESS" in printed
    assert "<svg" in printed
    assert OF_THE_EXAMPLES.findall(printed) == []


def test_load_passes_its_gates_beside_the_task_of_the_team(clone: Clone) -> None:
    printed = clone.run("LOAD_SHAPES=tests/load/shapes.toml make load SHAPE=short")
    assert "The gates held" in printed
    assert OF_THE_EXAMPLES.findall(printed) == []
