"""Installs Flux from the Go modules of its controllers. `flux install` would need a registry."""

import json
import shutil
import tempfile
from pathlib import Path

from minicluster import archives, binaries
from minicluster.lifecycle import Minicluster
from minicluster.stand_ins.server_image import REPOSITORY
from ops.command import output, show
from ops.tools import cache, kubectl, locked, module_folders

CONTROLLERS = ("source-controller", "kustomize-controller", "helm-controller")
NAMESPACE = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "flux-system"}}
TIMEOUT_S = 60
START_TIMEOUT_S = 180


def install(cluster: Minicluster) -> None:
    """Install Flux, and wait until its controllers are available. Raises Unusable if they are not in time."""
    cluster.ensure_image(archive(), names()[0])
    api = (kubectl(), f"--kubeconfig={cluster.kubeconfig}")
    apply = ("apply", "--server-side", "--force-conflicts", "--filename=-")
    output(*api, *apply, text=manifests(), timeout_s=TIMEOUT_S)
    wait = ("wait", "deployment", "--all", "--namespace=flux-system", "--for=condition=Available")
    show(*api, *wait, f"--timeout={START_TIMEOUT_S}s", timeout_s=START_TIMEOUT_S + TIMEOUT_S)


def manifests() -> str:
    """The rendered `config` of each module, in Flux's namespace and with the locally built image."""
    folders = dict(zip(CONTROLLERS, module_folders()[1:], strict=True))
    with tempfile.TemporaryDirectory() as temporary:
        resources = []
        for name, folder in folders.items():
            # Copied, because Kustomize accepts no absolute paths. Not `default`, which downloads releases.
            for part in ("crd", "rbac", "manager"):
                shutil.copytree(folder / "config" / part, Path(temporary) / name / part, copy_function=shutil.copyfile)
                resources.append(f"{name}/{part}")
        (Path(temporary) / "namespace.yaml").write_text(json.dumps(NAMESPACE))
        kustomization = {
            "apiVersion": "kustomize.config.k8s.io/v1beta1",
            "kind": "Kustomization",
            "namespace": "flux-system",
            "resources": ["namespace.yaml", *resources],
            "images": [{"name": f"fluxcd/{name}", "newName": _name(name), "newTag": tag()} for name in CONTROLLERS],
            "patches": [_start(name) for name in CONTROLLERS],
        }
        (Path(temporary) / "kustomization.yaml").write_text(json.dumps(kustomization))
        return output(kubectl(), "kustomize", temporary, timeout_s=TIMEOUT_S)


def _name(controller: str) -> str:
    return f"{REPOSITORY}/{controller}"


def _start(controller: str) -> dict[str, object]:
    """The patch that sets a controller's command: the three controllers share an image without an entrypoint."""
    command = {"op": "add", "path": "/spec/template/spec/containers/0/command", "value": [f"/{controller}"]}
    return {"target": {"kind": "Deployment", "name": controller}, "patch": json.dumps([command])}


def names() -> list[str]:
    """The names of the image, one for each controller."""
    return [f"{_name(name)}:{tag()}" for name in CONTROLLERS]


def tag() -> str:
    """The image's tag. It changes with the programs."""
    return binaries.folder_of(binaries.FLUX).name


def archive() -> Path:
    """The path of the image's archive."""
    path = cache() / f"image-{tag()}.tar"
    with locked(path):
        if not path.exists():
            folder = binaries.folder_of(binaries.FLUX)
            programs = {f"/{name}": folder / name for name in CONTROLLERS}
            archives.of_programs(programs, names(), path)
    return path
