"""The commands of the README print what it shows."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent.parent
EXAMPLES = re.findall(
    r"^```console\n\$ ([^\n]*)\n(.*?)^```$", (FOLDER / "README.md").read_text(), re.MULTILINE | re.DOTALL
)


def test_there_are_five_examples() -> None:
    assert [command.split()[1] for command, _ in EXAMPLES] == ["compare", "simulate", "lint", "size", "hpa"]


@pytest.mark.parametrize(("command", "output"), EXAMPLES)
def test_example_prints_what_the_readme_shows(command: str, output: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent), prepend=":")
    done = subprocess.run(["sh", "-c", command], cwd=FOLDER, capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == (output, "")
