"""Builds the programs of a cluster from pinned Go modules. They are cached by a digest of their sources."""

import hashlib
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from ops.tools import built, cache, go, locked

MODULES = Path(__file__).parent / "go"
KUBERNETES_VERSION = "1.36.3"
# Kubernetes and KEDA each take 6 minutes on two idle cores, and 30 minutes on busy ones.
BUILD_TIMEOUT_S = 3600
_SYMBOL = "-X k8s.io/component-base/version"


@dataclass(frozen=True)
class Module:
    """A folder of `go/`. The `tool` entries of its go.mod are the programs to build."""

    name: str
    # linker flags that set the reported version: KEDA's operator compares its own version with the adapter's
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
# Programs of `ops.pins`. Helm installs the charts, and the other two encrypt the Secrets that Flux reads from git.
HELM = "helm"
FLUX_SECRETS = ("age-keygen", "sops")


def folder_of(module: Module) -> Path:
    """The folder of a module's programs, which are built if they are not cached. Raises Unusable if the build fails."""
    source = MODULES / module.name
    parts = [path.read_bytes() for path in sorted(source.iterdir())]
    digest = hashlib.sha256(b"".join([*parts, module.version_flags.encode()])).hexdigest()[:12]
    folder = cache() / f"{module.name}-{digest}"
    with locked(folder):
        if not folder.exists():
            print(f"Building {module.name} once in {folder}", file=sys.stderr, flush=True)
            _build(module, folder)
    return folder


def build(*, flux: bool) -> None:
    """Build the programs of every module in advance, so that tests do not wait for it. Flux is built only if `flux`."""
    for module in ALL:
        if flux or module is not FLUX:
            folder_of(module)
    for program in (HELM, *(FLUX_SECRETS if flux else ())):
        built(program)


def _build(module: Module, folder: Path) -> None:
    unfinished = folder.with_name(f"{folder.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir()
    # -p 2: more concurrent compilers need more memory than small machines have. -dwarf=false: the linker's -w drops the
    # debug data anyway, and a build that does not generate it is faster by an eighth.
    go(
        "build", "-p", "2", "-trimpath", "-ldflags", f"-s -w {module.version_flags}", "-gcflags=all=-dwarf=false",
        "-o", f"{unfinished}/", "tool",
        folder=MODULES / module.name, timeout_s=BUILD_TIMEOUT_S, CGO_ENABLED="0", GOFLAGS="-buildvcs=false",
    )  # fmt: skip
    unfinished.replace(folder)
