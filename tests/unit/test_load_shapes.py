"""The shapes of the load test, from shapes.toml."""

from pathlib import Path

import pytest

from apps.contract.tasks import input_adapter, registry
from loadtest import shapes
from loadtest.system import raise_open_files
from loadtest.tasks.contract import LONG, SHORT
from ops.command import Unusable
from sluice_planner import locust_shape
from tests.harness.system import ROOT

NAMES = (ROOT / "loadtest" / "names.txt").read_text(encoding="utf-8").splitlines()
ALL = ("smoke", "original", "original-settings", "burst", "soak", "step")


@pytest.mark.parametrize("name", ALL)
def test_shape_is_valid(name: str) -> None:
    shape = shapes.load(name, {})
    assert sum(shape.mix.users.values()) == 100
    assert shape.mix.tasks.keys() <= shape.task_s.keys() == {LONG.short_name, SHORT.short_name}
    assert shape.holds()


def test_original_shape_has_the_numbers_of_the_original() -> None:
    shape = shapes.load("original", {})
    assert (shape.users_max, shape.long_s, shape.short_s) == (7000, 15, 10)
    assert [end_s - begin_s for begin_s, end_s, users in shape.holds() if users == 7000] == [300]


def test_burst_has_ten_times_the_users_of_the_quiet_stages() -> None:
    assert [users for *_, users in shapes.load("burst", {}).holds()] == [20, 200, 20]


def test_stage_without_users_is_no_hold() -> None:
    shape = shapes.load("smoke", {}).model_copy(update={"stages": ((10, 0), (5, 20), (20, 20))})
    assert shape.holds() == [(15, 35, 20)]


@pytest.mark.parametrize(("at_s", "users"), [(0, 0), (2.5, 10), (5, 20), (24, 20), (27.5, 10), (30, None)])
def test_number_of_users_follows_the_stages(at_s: float, users: int | None) -> None:
    assert shapes.load("smoke", {}).users_at(at_s) == users


def test_planner_reads_the_same_users(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(shapes.SHAPE, "burst")
    users = locust_shape.users(ROOT / "loadtest" / "stages.py", "test")
    shape = shapes.load("burst", {})
    assert users == [float(shape.users_at(second) or 0) for second in range(int(shape.length_s))]


def test_durations_of_tasks_can_be_set() -> None:
    assert shapes.load("original", {"LONG_S": "2", "SHORT_S": "1"}).task_s == {"load_long": 2, "load_short": 1}


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("[shapes.x]\n", "The shape x in shapes.toml is invalid: about: Field required"),
        ("shapes = {}\n", "There is no shape 'x': choose one of , or add it to shapes.toml"),
        ("nonsense", "has no shapes"),
    ],
)
def test_invalid_shape_file_is_named_in_the_error(tmp_path: Path, text: str, sentence: str) -> None:
    file = tmp_path / "shapes.toml"
    mix = "[mix]\nusers={}\ntasks={}\nbatch_tasks=1\nkeyed_share=1\nslow_idle_s=[1,2]\n" if text.startswith("[") else ""
    file.write_text(mix + text)
    with pytest.raises(Unusable) as caught:
        shapes.load("x", {shapes.SHAPES: str(file)})
    assert sentence in str(caught.value)


def test_limit_of_open_files_is_reported_in_one_sentence() -> None:
    with pytest.raises(
        Unusable, match=r"^The users of this shape need \d+ open files, and only \d+ are allowed: raise the limit"
    ):
        raise_open_files(2**31)


def test_names_are_valid_and_include_the_extreme_ones() -> None:
    adapter = input_adapter(registry(LONG, SHORT))
    for name in NAMES:
        adapter.validate_python({"task": "load_long", "name": name, "seconds": 15})
    assert max(map(len, NAMES)) == 255
    assert any(not name.isascii() for name in NAMES)
    assert any(ord(max(name)) > 0xFFFF for name in NAMES)
    assert len(set(NAMES)) == len(NAMES)
