"""The programs of a cluster, each built once from its pinned Go module and kept by what it is made of."""

import hashlib
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from deploy.run import command_line
from deploy.tools import built, cache, go, locked
from tests.e2e.cluster import packages

MODULES = Path(__file__).parent / "go"
KUBERNETES_VERSION = "1.36.3"
# Kubernetes and KEDA take six minutes each on two idle cores; on busy ones five times that
BUILD_TIMEOUT_S = 3600
_SYMBOL = "-X k8s.io/component-base/version"


@dataclass(frozen=True)
class Module:
    """A folder of `go/`, whose go.mod lists the programs as its tools."""

    name: str
    # what the programs answer when they are asked for their version: KEDA's operator compares it with its adapter's
    version_flags: str = ""


ETCD = Module("etcd")
COREDNS = Module("coredns")
KUBERNETES = Module(
    "kubernetes",
    f"{_SYMBOL}.gitVersion=v{KUBERNETES_VERSION} {_SYMBOL}.gitMajor=1 {_SYMBOL}.gitMinor=36",
)
KEDA = Module("keda", "-X github.com/kedacore/keda/v2/version.Version=2.21.0")
FLUX = Module("flux")
PAUSE = Module("pause")
ALL = (PAUSE, ETCD, KUBERNETES, COREDNS, KEDA, FLUX)
# Of `deploy.pins`: what installs charts, and what encrypts the Secrets that Flux reads from git.
HELM = "helm"
OF_FLUX = ("age-keygen", "sops")


def folder_of(module: Module) -> Path:
    """The folder of a module's programs, built now if this is the first time."""
    source = MODULES / module.name
    parts = [path.read_bytes() for path in sorted(source.iterdir())]
    digest = hashlib.sha256(b"".join([*parts, module.version_flags.encode()])).hexdigest()[:12]
    folder = cache() / f"{module.name}-{digest}"
    with locked(folder):
        if not folder.exists():
            print(f"Building {module.name}, this once, into {folder}", file=sys.stderr, flush=True)
            _build(module, folder)
    return folder


def _build(module: Module, folder: Path) -> None:
    unfinished = folder.with_name(f"{folder.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir()
    # -p 2: more compilers at once than that need more memory than a small machine has. What -w leaves out of a program
    # is not made in the first place, which saves an eighth.
    go(
        "build", "-p", "2", "-trimpath", "-ldflags", f"-s -w {module.version_flags}", "-gcflags=all=-dwarf=false",
        "-o", f"{unfinished}/", "tool",
        folder=MODULES / module.name, timeout_s=BUILD_TIMEOUT_S, CGO_ENABLED="0", GOFLAGS="-buildvcs=false",
    )  # fmt: skip
    unfinished.replace(folder)


def main() -> None:
    """Build what parts of the tests need, or everything: `python -m tests.e2e.cluster.binaries [PART...]`.

    All of it beforehand: in a test it would be in that test's time.
    """
    packages.ensure()  # says where no cluster can be made, before a quarter of an hour of building
    parts = sys.argv[1:]
    flux = not parts or "flux" in parts
    for module in ALL:
        if module is not FLUX or flux:
            folder_of(module)
    for program in (HELM, *(OF_FLUX if flux else ())):
        built(program)


if __name__ == "__main__":
    command_line(main)
