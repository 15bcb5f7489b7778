"""Flux's controllers from their own modules, their manifests and an image; elsewhere `flux install` brings them."""

import json
import shutil
import tempfile
from pathlib import Path

from deploy.run import output, show
from deploy.tools import cache, kubectl, locked, module_folders
from tests.e2e.cluster import binaries
from tests.e2e.cluster.bare import Bare
from tests.e2e.platform import images, install

CONTROLLERS = ("source-controller", "kustomize-controller", "helm-controller")
NAMESPACE = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "flux-system"}}
TIMEOUT_S = 60
START_TIMEOUT_S = 180


def into(cluster: Bare, kubeconfig: Path) -> None:
    """Flux, ready."""
    install.load(cluster, image(), names()[0])
    api = (kubectl(), f"--kubeconfig={kubeconfig}")
    apply = ("apply", "--server-side", "--force-conflicts", "--filename=-")
    output(*api, *apply, text=manifests(), timeout_s=TIMEOUT_S)
    wait = ("wait", "deployment", "--all", "--namespace=flux-system", "--for=condition=Available")
    show(*api, *wait, f"--timeout={START_TIMEOUT_S}s", timeout_s=START_TIMEOUT_S + TIMEOUT_S)


def manifests() -> str:
    """What each module's config has, in the namespace and with the images that it has here."""
    folders = dict(zip(CONTROLLERS, module_folders()[1:], strict=True))
    with tempfile.TemporaryDirectory() as temporary:
        resources = []
        for name, folder in folders.items():
            # copied, as Kustomize takes no absolute paths; not `default`, which fetches other modules' releases
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
            "patches": [_program(name) for name in CONTROLLERS],
        }
        (Path(temporary) / "kustomization.yaml").write_text(json.dumps(kustomization))
        return output(kubectl(), "kustomize", temporary, timeout_s=TIMEOUT_S)


def _name(controller: str) -> str:
    return f"{images.REPOSITORY}/{controller}"


def _program(controller: str) -> dict[str, object]:
    """Three controllers share the image, which starts none by itself."""
    command = {"op": "add", "path": "/spec/template/spec/containers/0/command", "value": [f"/{controller}"]}
    return {"target": {"kind": "Deployment", "name": controller}, "patch": json.dumps([command])}


def names() -> list[str]:
    """Of the image, one for each controller."""
    return [f"{_name(name)}:{tag()}" for name in CONTROLLERS]


def tag() -> str:
    """Of the image: changes with the programs."""
    return binaries.folder_of(binaries.FLUX).name


def image() -> Path:
    """The archive of one image by the three controllers' names."""
    path = cache() / f"image-{tag()}.tar"
    with locked(path):
        if not path.exists():
            folder = binaries.folder_of(binaries.FLUX)
            programs = {f"/{name}": folder / name for name in CONTROLLERS}
            images.of_programs(programs, names(), path)
    return path
