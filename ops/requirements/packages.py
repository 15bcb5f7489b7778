"""Adds and removes packages (`make add`, `make remove`), and checks that the lock files match pyproject.toml."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from ops.command import ROOT, Unusable, command_line
from ops.requirements.lock import (
    LOCKS,
    PIN,
    PLANNER,
    PYPROJECT,
    Lock,
    changing,
    extras,
    project_metadata,
    require_locks,
    resolve,
    uv,
)


def main() -> None:
    """`add` or `remove` a package, or `check` the lock files. The environment has PACKAGE and EXTRA."""
    package, extra = os.environ.get("PACKAGE", "").strip(), os.environ.get("EXTRA") or "worker"
    match sys.argv[1:]:
        case ["check"]:
            check(ROOT)
        case ["add" | "remove" as verb]:
            change(ROOT, verb, package, extra)
        case _:
            raise Unusable("Usage: python -m ops.requirements.packages add|remove|check")


def change(project: Path, verb: str, text: str, extra: str) -> None:
    """Add a package to an extra, or remove it, in pyproject.toml and in every lock file that includes the extra.

    The extra `planner` stands for planner/pyproject.toml. Pins of other packages are kept. Raises Unusable if the name,
    the extra or the resolution is invalid; then no file is changed.
    """
    name = _name(verb, text)
    if name in {_own_name(project, file) for file in (PYPROJECT, PLANNER)}:
        raise Unusable(f"{text!r} is this project itself.")
    included = extras(project)
    if extra not in {*included, "planner"}:
        named = ", ".join(sorted({*included, "planner"}))
        raise Unusable(f"pyproject.toml has no extra {extra!r}: EXTRA is one of {named}.")
    if extra == "planner":
        file, options = PLANNER, []
        locks = [lock for lock in LOCKS if lock.planner]
    else:
        file, options = PYPROJECT, ["--optional", extra]
        locks = [lock for lock in LOCKS if lock.extra and extra in included[lock.extra]]
    print(f"Resolving {_listed([lock.name for lock in locks])}.", flush=True)
    try:
        with changing(project) as copy:
            named = text if verb == "add" else name
            uv((copy / file).parent, verb, "--quiet", "--frozen", *options, named)
            for lock in locks:
                resolve(copy, lock, movable=name)
    except Unusable as exc:
        raise Unusable(f"`make {verb}` changed nothing: {exc}.") from None
    where = f"the extra `{extra}` of {file}" if options else file
    print(f"`{text}` is {'now' if verb == 'add' else 'no longer'} in {where}.")


def check(project: Path) -> None:
    """Raises Unusable if a lock file is missing, or does not match the requirements in pyproject.toml."""
    require_locks(project)
    resolved = [lock for lock in LOCKS if lock.extra or lock.planner]
    stale = {lock.name: found for lock in resolved if (found := sorted(set(_differences(project, lock))))}
    if stale:
        files, packages = _listed(list(stale)), ", ".join(sorted(set().union(*stale.values())))
        raise Unusable(
            f"{PYPROJECT} or {PLANNER} has changed since {files} {'was' if len(stale) == 1 else 'were'} resolved "
            f"({packages}): run `make lock`, which keeps every pin that still fits."
        )


def _name(verb: str, text: str) -> str:
    example = f'make {verb} PACKAGE="pandas[excel]>=2"' if verb == "add" else f"make {verb} PACKAGE=pandas"
    try:
        requirement = Requirement(text)
    except InvalidRequirement:
        raise Unusable(f"{text!r} is not a requirement: name a package, as in `{example}`.") from None
    if requirement.url:
        raise Unusable(f"{text!r} is a URL: lock files contain only names and versions, as in `{example}`.")
    return canonicalize_name(requirement.name)


def _differences(project: Path, lock: Lock) -> Iterator[str]:
    """The requirements that the lock file lacks or does not satisfy, and the pins that no requirement explains."""
    text = lock.path(project).read_text()
    pins = {match["name"]: match for match in PIN.finditer(text)}
    named = [Requirement(each) for each in lock.requirements(project)]
    for requirement in named:
        pin = pins.get(canonicalize_name(requirement.name))
        if pin is None and requirement.marker is None:  # a marker may exclude every supported Python
            yield requirement.name
        if pin is not None and not _fits(requirement, pin["version"], pin["extras"]):
            yield str(requirement)
    # uv writes a comment below each pin that names the files or packages that require it
    notes = PIN.split(text)
    for name, note in zip(notes[1 :: PIN.groups + 1], notes[PIN.groups + 1 :: PIN.groups + 1], strict=True):
        direct = any(f"{_own_name(project, file)} ({file})" in note for file in (PYPROJECT, PLANNER))
        if direct and name not in {canonicalize_name(each.name) for each in named}:
            yield name


def _own_name(project: Path, file: str) -> str:
    return str(project_metadata(project, file)["name"])


def _fits(requirement: Requirement, version: str, extras_: str | None) -> bool:
    there = {canonicalize_name(extra) for extra in (extras_ or "").split(",")}
    asked = {canonicalize_name(extra) for extra in requirement.extras}
    return requirement.specifier.contains(version, prereleases=True) and asked <= there


def _listed(names: list[str]) -> str:
    return ", ".join(f"requirements/{name}.txt" for name in names)


if __name__ == "__main__":
    command_line(main)
