"""Rules for completeness: the required objects of a folder. The other rules check only existing objects."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ops.validate import attribution
from ops.validate.tree import COMPONENT_BASES, FOLDERS, KUSTOMIZATION, Finding, Tree
from sluice_planner.kubernetes_objects import document_of

APPLICATION = {
    "Namespace": ("fastapi", "celery-workers"),
    "Deployment": ("fastapi/api", "celery-workers/celery-worker", "celery-workers/dead-letter-recorder"),
    "Service": ("fastapi/api",),
    "Ingress": ("fastapi/api",),
    "ScaledObject": ("celery-workers/celery-worker-scaler",),
    "TriggerAuthentication": ("celery-workers/rabbitmq-worker-trigger",),
    "NetworkPolicy": ("fastapi/deny-all", "celery-workers/deny-all"),
    "PriorityClass": ("sluice-api", "sluice-workers"),
}
PLATFORM = {
    "Namespace": ("data", "nginx", "keda"),
    "HelmRelease": ("data/rabbitmq", "data/redis", "nginx/nginx-ingress", "keda/keda"),
    "NetworkPolicy": ("data/deny-all",),
    "PriorityClass": ("sluice-data", "sluice-platform"),
}
CLUSTER = {"Kustomization": ("flux-system/infrastructure", "flux-system/apps", "flux-system/api")}
# (kind, objects): a folder with an object of this kind must contain these objects
REQUIRED = (("Deployment", APPLICATION), ("HelmRelease", PLATFORM), ("GitRepository", CLUSTER))


def check(tree: Tree) -> Iterator[Finding]:
    """Check every rendered folder, and every YAML file in the folders of the manifests."""
    missing = {target: _missing(tree, target) for target in tree.rendered}
    for target, titles in missing.items():
        inside = attribution.folders(tree.root, target)
        # Report a missing object only for the included folder that lacks it. A component includes nothing, but is
        # rendered with a base.
        included = [*COMPONENT_BASES.values(), *inside]
        reported = {title for folder in included if folder != target for title in missing.get(folder, ())}
        for title in sorted(titles - reported):
            yield Finding(f"{target}/{KUSTOMIZATION}", title, "resources", "is missing", target)
        for folder in inside:
            yield from _patches_without_target(tree, target, folder)
        yield from _shared_files(tree, target)
    yield from _unused_files(tree.root)


def _missing(tree: Tree, target: str) -> set[str]:
    existing = {each.title for each in tree.objects(target=target)}
    required = {
        f"{kind} {name}"
        for present, objects in REQUIRED
        if any(tree.objects(present, target=target))
        for kind, names in objects.items()
        for name in names
    }
    return required - existing


def _shared_files(tree: Tree, target: str) -> Iterator[Finding]:
    """Find namespaces that share a file with other objects: removing this file from git also removes the namespace."""
    files = Counter(each.file for each in tree.objects(target=target))
    for each in tree.objects("Namespace", target=target):
        if files[each.file] > 1:
            yield each.finding(
                "file", "must be alone in its file: removing a chart's file would remove the namespace too"
            )


def _patches_without_target(tree: Tree, target: str, folder: str) -> Iterator[Finding]:
    """Find patches without a target object: Kustomize silently ignores such a patch."""
    for number, entry in enumerate(document_of(tree.root / folder / KUSTOMIZATION).get("patches") or []):
        chosen = entry.get("target")
        if chosen and not any(
            attribution.is_target(chosen, each.kind, each.name) for each in tree.objects(target=target)
        ):
            field = f"patches.{number}.target"
            yield Finding(
                f"{folder}/{KUSTOMIZATION}", "Kustomization", field, f"there is no {' '.join(chosen.values())}", target
            )


def _unused_files(root: Path) -> Iterator[Finding]:
    """Find manifests that no kustomization.yaml includes: they would never be applied."""
    files = [path for name in FOLDERS for path in (root / name).rglob("*.y*ml")]
    included = {one.resolve() for path in files if path.name == KUSTOMIZATION for one in _referenced_files(path)}
    for path in sorted(files):
        if path.name != KUSTOMIZATION and path.resolve() not in included:
            yield Finding(str(path.relative_to(root)), "file", "name", "no kustomization.yaml includes this file")


def _referenced_files(path: Path) -> Iterator[Path]:
    body: dict[str, Any] = document_of(path)
    for entry in [*(body.get("resources") or []), *(body.get("patches") or []), *(body.get("configurations") or [])]:
        name = entry.get("path") if isinstance(entry, dict) else entry
        if name is not None and "://" not in name:
            yield path.parent / name
