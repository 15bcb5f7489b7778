"""The README and docs/settings.md match the make targets, folders, measurements and settings."""

import re
import subprocess
from pathlib import Path

import pytest

from apps.contract.settings import ApiSettings, RecorderSettings, Settings, WorkerSettings

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
SETTINGS = (ROOT / "docs/settings.md").read_text()


def test_length_is_readable() -> None:
    assert 100 <= len(README.splitlines()) <= 150


def test_sections_are_in_the_agreed_order() -> None:
    introduction, *sections = re.split(r"^## (.*)$", README, flags=re.MULTILINE)
    assert sections[::2] == ["Start", "Use", "Add a task", "Deploy", "Plan", "Promises", "Map"]
    assert "![" in introduction


def test_figures_are_in_the_linked_measurement() -> None:
    figures = re.findall(r"^- `make [^\n]*: \[([^\]]+)\]\((docs/measurements/\S+)\)", README, re.MULTILINE)
    assert len(figures) > 3
    for text, document in figures:
        measured = set(_numbers((ROOT / document).read_text()))
        assert [number for number in _numbers(text) if number not in measured] == [], document


def test_every_make_target_exists() -> None:
    text = "".join((ROOT / name).read_text() for name in ("Makefile", "ops/targets.mk"))
    verbs = set(re.findall(r"^([a-z0-9-]+):.*?##", text, re.MULTILINE))

    assert set(re.findall(r"(?:`|^|=\S+ )make ([a-z0-9-]+)", README)) <= verbs


def test_map_lists_exactly_the_top_level_folders() -> None:
    folders = re.findall(r"^\| `([a-z-]+)/` \|", README.partition("\n## Map\n")[2], re.MULTILINE)
    files = subprocess.run(["git", "ls-files"], cwd=ROOT, check=True, capture_output=True, text=True).stdout.split()
    there = {name.partition("/")[0] for name in files if "/" in name and not name.startswith(".")}
    assert len(there) > 4
    assert sorted(folders) == sorted(there)


@pytest.mark.parametrize("kind", [ApiSettings, WorkerSettings, RecorderSettings])
def test_documented_settings_and_defaults_equal_those_of_the_code(kind: type[Settings]) -> None:
    rows = dict(re.findall(r"^\| `([A-Z0-9_]+)` \| ([^|]*?) \|", SETTINGS, re.MULTILINE))
    for name, field in kind.model_fields.items():
        expected = "needed" if field.is_required() else _shown(field.default)
        assert rows[name.upper()] == expected, name


def test_every_documented_setting_exists() -> None:
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
