"""Bearer keys in two formats, in a variable or a file; an error is one sentence that contains no key."""

import json
from pathlib import Path
from typing import Any

import pytest

from apps.api.auth import read_keys
from apps.contract import keys
from apps.contract.settings import ApiSettings, load
from tests.unit.test_settings import GOOD

KEY = "sixteen-bytes-or-more"


def entry(**changed: Any) -> dict[str, Any]:
    return {"name": "shop", "key": KEY} | changed


def test_json_format_sets_quotas_per_client() -> None:
    shop, other = keys.parse(json.dumps([entry(tasks_per_s=50, open_tasks=5000), entry(name="other", key=f"{KEY}-2")]))
    assert (shop.name, shop.tasks_per_s, shop.open_tasks) == ("shop", 50, 5000)
    assert (other.tasks_per_s, other.open_tasks) == (None, None)
    assert KEY not in repr(shop)


@pytest.mark.parametrize("text", [f"shop:{KEY},other:second-of-the-keys", json.dumps([entry(), entry(name="b")])])
def test_first_key_is_found_in_both_formats(text: str) -> None:
    assert keys.first_key(text) == KEY


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[", "it must read name:key"),
        ("{}", "it must read name:key"),
        ("[5]", "(client 1)"),
        ("shop", "it must read name:key"),
        (json.dumps([entry(), entry(key="short")]), "it must have 16 to 64 bytes (client 2, key)"),
        (json.dumps([{"name": "shop"}]), "Field required (client 1, key)"),
        (json.dumps([entry(name="")]), "(client 1, name)"),
        (json.dumps([entry(name="a\0b")]), "a name has printable characters only (client 1, name)"),
        (json.dumps([entry(key=f"{KEY}ü")]), "a key has visible ASCII characters only"),
        (json.dumps([entry(tasks_per_s=0)]), "(client 1, tasks_per_s)"),
        (json.dumps([entry(tasks_per_s="many")]), "(client 1, tasks_per_s)"),
        (json.dumps([entry(open_tasks=1.5)]), "(client 1, open_tasks)"),
        (json.dumps([entry(rate=5)]), "(client 1, rate)"),
        (json.dumps([entry(), entry(key=f"{KEY}-2")]), "it gives a name twice"),
        (json.dumps([entry(), entry(name="b")]), "it gives two clients the same key"),
    ],
)
def test_invalid_keys_are_one_sentence_without_a_key(text: str, says: str, tmp_path: Path) -> None:
    path = tmp_path / "keys"
    path.write_text(text)
    with pytest.raises(SystemExit) as refused:
        read_keys(load(ApiSettings, GOOD | {"API_KEYS": "", "API_KEYS_FILE": str(path)}))
    (sentence,) = str(refused.value).splitlines()
    assert sentence.startswith(f"API_KEYS_FILE: {path}: ")
    assert says in sentence
    assert KEY not in sentence


@pytest.mark.parametrize(
    ("content", "says"),
    [(None, "cannot be read (No such file"), (b"\xff", "no text in UTF-8"), (b" \n", "has no keys")],
)
def test_unreadable_or_empty_key_file_is_one_sentence(content: bytes | None, says: str, tmp_path: Path) -> None:
    path = tmp_path / "keys"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SystemExit) as refused:
        read_keys(load(ApiSettings, GOOD | {"API_KEYS": "", "API_KEYS_FILE": str(path)}))
    assert says in str(refused.value)


def test_folder_as_key_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="cannot be read"):
        read_keys(load(ApiSettings, GOOD | {"API_KEYS": "", "API_KEYS_FILE": str(tmp_path)}))


def test_keys_in_both_places_are_refused() -> None:
    with pytest.raises(SystemExit, match="are both set"):
        load(ApiSettings, GOOD | {"API_KEYS_FILE": "/keys"})
