"""The packages that the code may import: `make add`, `make remove`, and whether the lock files have them all."""

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
    Lock,
    changing,
    extras,
    project_metadata,
    require_locks,
    requirements,
    resolve,
    uv,
)


def main() -> None:
    """`add` or `remove` the PACKAGE of the environment, in its EXTRA; or `check` the lock files."""
    package, extra = os.environ.get("PACKAGE", "").strip(), os.environ.get("EXTRA") or "worker"
    match sys.argv[1:]:
        case ["check"]:
            check(ROOT)
        case ["add" | "remove" as verb]:
            change(ROOT, verb, package, extra)
        case _:
            raise Unusable("Usage: python -m ops.requirements.packages add|remove|check")


def change(project: Path, verb: str, text: str, extra: str) -> None:
    """Add a package to an extra, or remove it, in pyproject.toml and in every lock file that has this extra.

    Moves no pin of another package. Unusable where that cannot be; then no file has changed.
    """
    name = _name(verb, text)
    if name == _own_name(project):
        raise Unusable(f"{text!r} is this project itself.")
    included = extras(project)
    if extra not in included:
        raise Unusable(f"pyproject.toml has no extra {extra!r}: EXTRA is one of {', '.join(sorted(included))}.")
    locks = [lock for lock in LOCKS if lock.extra and extra in included[lock.extra]]
    print(f"Resolving {_listed([lock.name for lock in locks])}.", flush=True)
    try:
        with changing(project) as copy:
            uv(copy, verb, "--quiet", "--frozen", "--optional", extra, text if verb == "add" else name)
            for lock in locks:
                resolve(copy, lock, movable=name)
    except Unusable as exc:
        raise Unusable(f"`make {verb}` changed nothing: {exc}.") from None
    print(f"`{text}` is {'now' if verb == 'add' else 'no longer'} in the extra `{extra}` of pyproject.toml.")


def check(project: Path) -> None:
    """Unusable where a lock file is missing, or pyproject.toml names something else than they were resolved from."""
    require_locks(project)
    stale = {lock.name: found for lock in LOCKS if lock.extra and (found := sorted(set(_differences(project, lock))))}
    if stale:
        files, packages = _listed(list(stale)), ", ".join(sorted(set().union(*stale.values())))
        raise Unusable(
            f"pyproject.toml has changed since {files} {'was' if len(stale) == 1 else 'were'} resolved ({packages}): "
            "run `make lock`, which keeps every pin that still fits."
        )


def _name(verb: str, text: str) -> str:
    example = f'make {verb} PACKAGE="pandas[excel]>=2"' if verb == "add" else f"make {verb} PACKAGE=pandas"
    try:
        requirement = Requirement(text)
    except InvalidRequirement:
        raise Unusable(f"{text!r} is no requirement: say which package, as in `{example}`.") from None
    if requirement.url:
        raise Unusable(f"{text!r} is an address: a lock file has names and versions only, as in `{example}`.")
    return canonicalize_name(requirement.name)


def _differences(project: Path, lock: Lock) -> Iterator[str]:
    """The packages that pyproject.toml names in another way than the lock file has them."""
    text = lock.path(project).read_text()
    pins = {match["name"]: match for match in PIN.finditer(text)}
    named = [Requirement(each) for each in (*requirements(project, str(lock.extra)), *lock.more)]
    for requirement in named:
        pin = pins.get(canonicalize_name(requirement.name))
        if pin is None and requirement.marker is None:  # a marker may exclude every Python that we have
            yield requirement.name
        if pin is not None and not _fits(requirement, pin["version"], pin["extras"]):
            yield str(requirement)
    # uv notes at each pin what asked for it
    notes = PIN.split(text)
    for name, note in zip(notes[1 :: PIN.groups + 1], notes[PIN.groups + 1 :: PIN.groups + 1], strict=True):
        direct = f"{_own_name(project)} (pyproject.toml)" in note
        if direct and name not in {canonicalize_name(each.name) for each in named}:
            yield name


def _own_name(project: Path) -> str:
    return str(project_metadata(project)["name"])


def _fits(requirement: Requirement, version: str, extras_: str | None) -> bool:
    there = {canonicalize_name(extra) for extra in (extras_ or "").split(",")}
    asked = {canonicalize_name(extra) for extra in requirement.extras}
    return requirement.specifier.contains(version, prereleases=True) and asked <= there


def _listed(names: list[str]) -> str:
    return ", ".join(f"requirements/{name}.txt" for name in names)


if __name__ == "__main__":
    command_line(main)
