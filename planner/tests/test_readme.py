"""The README describes every command and input format, and its examples print the output that it shows."""

import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from sluice_planner import arrivals, service_times
from sluice_planner.cli import COMMANDS

FOLDER = Path(__file__).parent.parent
TEXT = (FOLDER / "README.md").read_text()
EXAMPLES = re.findall(r"^```console\n\$ ([^\n]*)\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)


def test_there_are_five_examples() -> None:
    assert [command.split()[1] for command, _ in EXAMPLES] == ["compare", "simulate", "lint", "size", "hpa"]


@pytest.mark.parametrize(("command", "output"), EXAMPLES)
def test_example_prints_the_output_in_the_readme(command: str, output: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent), prepend=":")
    done = subprocess.run(["sh", "-c", command], cwd=FOLDER, capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == (output, "")


def test_every_command_is_documented() -> None:
    assert {command.NAME for command in COMMANDS} == set(re.findall(r"^\| .* \| `(\w+)` \|", TEXT, re.MULTILINE))


@pytest.mark.parametrize("module", [arrivals, service_times])
def test_every_form_that_the_module_documents_is_documented(module: ModuleType) -> None:
    forms = re.findall(r"^    (\w+):", module.__doc__ or "", re.MULTILINE)
    assert forms
    assert [form for form in forms if f"`{form}:" not in TEXT] == []
