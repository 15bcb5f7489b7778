"""The README and the table of settings say what is true of verbs, folders, figures and settings."""

import re
import subprocess
from pathlib import Path

import pytest

from apps.contract.settings import ApiSettings, RecorderSettings, Settings, WorkerSettings

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
SETTINGS = (ROOT / "docs/settings.md").read_text()


def test_length_is_that_of_something_people_read() -> None:
    assert 100 <= len(README.splitlines()) <= 150


def test_order_is_that_of_a_newcomers_questions() -> None:
    introduction, *sections = re.split(r"^## (.*)$", README, flags=re.MULTILINE)
    assert sections[::2] == ["Start", "Use", "Add a task", "Deploy", "Plan", "Promises", "Map"]
    assert "![" in introduction


def test_figures_are_those_of_the_measurement_that_is_linked() -> None:
    figures = re.findall(r"^- `make [^\n]*: \[([^\]]+)\]\((docs/measurements/\S+)\)", README, re.MULTILINE)
    assert len(figures) > 3
    for text, document in figures:
        measured = set(_numbers((ROOT / document).read_text()))
        assert [number for number in _numbers(text) if number not in measured] == [], document


def test_every_verb_exists() -> None:
    text = "".join((ROOT / name).read_text() for name in ("Makefile", "ops/targets.mk"))
    verbs = set(re.findall(r"^([a-z0-9-]+):.*?##", text, re.MULTILINE))

    assert set(re.findall(r"(?:`|^|=\S+ )make ([a-z0-9-]+)", README)) <= verbs


def test_map_has_every_top_level_folder_and_no_other() -> None:
    folders = re.findall(r"^\| `([a-z-]+)/` \|", README.partition("\n## Map\n")[2], re.MULTILINE)
    files = subprocess.run(["git", "ls-files"], cwd=ROOT, check=True, capture_output=True, text=True).stdout.split()
    there = {name.partition("/")[0] for name in files if "/" in name and not name.startswith(".")}
    assert len(there) > 4
    assert sorted(folders) == sorted(there)


@pytest.mark.parametrize("kind", [ApiSettings, WorkerSettings, RecorderSettings])
def test_settings_and_their_defaults_are_those_of_the_code(kind: type[Settings]) -> None:
    rows = dict(re.findall(r"^\| `([A-Z0-9_]+)` \| ([^|]*?) \|", SETTINGS, re.MULTILINE))
    for name, field in kind.model_fields.items():
        expected = "needed" if field.is_required() else _shown(field.default)
        assert rows[name.upper()] == expected, name


def test_no_setting_is_made_up() -> None:
    known = {name.upper() for kind in (ApiSettings, WorkerSettings, RecorderSettings) for name in kind.model_fields}
    rows = set(re.findall(r"^\| `([A-Z0-9_]+)` \|", SETTINGS, re.MULTILINE))
    assert rows == known


def _numbers(text: str) -> list[str]:
    return re.findall(r"(?<![\d.,])\d[\d,]*(?:\.\d+)?(?![\d])", text)


def _shown(default: object) -> str:
    if default in (None, {}, ()):
        return "none"
    if isinstance(default, float) and default.is_integer():
        return str(int(default))
    return str(default).lower() if isinstance(default, bool) else str(default)
