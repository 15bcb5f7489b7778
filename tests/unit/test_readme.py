"""The README and the table of settings say what is true: verbs, folders and settings are the project's."""

import re
from pathlib import Path

import pytest

from apps.contract.settings import ApiSettings, RecorderSettings, Settings, WorkerSettings

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
SETTINGS = (ROOT / "docs/settings.md").read_text()


def test_length_is_that_of_something_people_read() -> None:
    assert 100 <= len(README.splitlines()) <= 200


def test_every_verb_exists() -> None:
    text = "".join((ROOT / name).read_text() for name in ("Makefile", "ops/targets.mk"))
    verbs = set(re.findall(r"^([a-z0-9-]+):.*?##", text, re.MULTILINE))

    assert set(re.findall(r"(?:`|^|=\S+ )make ([a-z0-9-]+)", README)) <= verbs


def test_every_folder_exists() -> None:
    folders = re.findall(r"^\| `([a-z/]+/)` \|", README, re.MULTILINE)
    assert len(folders) > 4
    assert [folder for folder in folders if not (ROOT / folder).is_dir()] == []


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


def _shown(default: object) -> str:
    if default in (None, {}, ()):
        return "none"
    if isinstance(default, float) and default.is_integer():
        return str(int(default))
    return str(default).lower() if isinstance(default, bool) else str(default)
