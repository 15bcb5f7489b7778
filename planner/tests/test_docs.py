"""The commands of README and docs/planner.md run, and what is said of them is so."""

import json
import re
import shlex
from pathlib import Path

import pytest

from deploy.run import ROOT
from planner import arrivals, cli, service

TEXT = "".join((ROOT / name).read_text() for name in ("README.md", "docs/planner.md"))
COMMANDS = re.findall(r"^\.venv/bin/sluice (.*)$", TEXT, re.MULTILINE)


def test_there_are_some() -> None:
    assert {command.split()[0] for command in COMMANDS} == {"simulate", "compare", "lint", "size"}


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_runs(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    assert cli.main(shlex.split(command)) == 0


def test_the_picture_is_as_the_readme_says(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(ROOT)
    (command,) = [each for each in COMMANDS if "burst:2200@1m" in each and each.startswith("compare")]
    assert command in (ROOT / "Makefile").read_text().replace(" \\\n\t\t--png docs/planner.png", "")
    cli.main([*shlex.split(command), "--json"])
    base, load = (side[0]["summary"] for side in json.loads(capsys.readouterr().out).values())
    assert (base["replicas_max"], load["replicas_max"]) == (2, 60)
    assert load["max_ready_at_s"] - 60 == 85
    assert "sixty after 85 s" in TEXT


def test_every_command_and_format_is_documented() -> None:
    document = (ROOT / "docs/planner.md").read_text()
    assert {command.NAME for command in cli.COMMANDS} == set(re.findall(r"^\| `(\w+)` \|", document, re.MULTILINE))
    # what their modules say they read
    for module in (arrivals, service):
        forms = re.findall(r"^    (\w+):", module.__doc__ or "", re.MULTILINE)
        assert [form for form in forms if f"`{form}:" not in document] == []


def test_the_picture_is_of_modest_size() -> None:
    assert 10_000 < Path(ROOT / "docs/planner.png").stat().st_size < 200_000
