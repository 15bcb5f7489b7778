"""Local credentials are generated once, private and never shown."""

import stat
from pathlib import Path

import pytest

from ops.command import Unusable
from ops.credentials import load_or_make


def test_credentials_are_generated_once_and_private(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "credentials.env"
    first = load_or_make(path)
    assert load_or_make(path) == first
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_all_passwords_are_different(tmp_path: Path) -> None:
    one, other = (load_or_make(tmp_path / name) for name in ("one", "other"))
    assert set(one.broker_passwords.values()).isdisjoint(other.broker_passwords.values())
    assert len({*one.broker_passwords.values(), *one.redis_passwords.values()}) == 5 + 6


def test_missing_credentials_are_added_and_the_others_kept(tmp_path: Path) -> None:
    path = tmp_path / "credentials.env"
    path.write_text("API_KEYS=mine:abc,other:def\n")
    credentials = load_or_make(path)
    assert credentials.api_key == "abc"
    assert f"TASK_ID_KEY={credentials.task_id_key}\n" in path.read_text()


def test_repr_contains_no_password(tmp_path: Path) -> None:
    credentials = load_or_make(tmp_path / "credentials.env")
    assert credentials.redis_password_api not in repr(credentials)


def test_folder_in_place_of_the_file_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(Unusable, match=r"cannot be used \(Is a directory\)"):
        load_or_make(tmp_path)
