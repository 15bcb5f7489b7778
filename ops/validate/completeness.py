"""Rules for completeness: the objects that a folder must have. The other rules check only existing objects."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ops.validate import attribution
from ops.validate.tree import FOLDERS, HOMES, KUSTOMIZATION, Finding, Tree
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
# what a folder is, by a kind that it has
TELLS = (("Deployment", APPLICATION), ("HelmRelease", PLATFORM), ("GitRepository", CLUSTER))


def check(tree: Tree) -> Iterator[Finding]:
    """Every folder that was rendered, and every file beside a kustomization.yaml."""
    missing = {target: _missing(tree, target) for target in tree.rendered}
    for target, titles in missing.items():
        inside = attribution.folders(tree.root, target)
        # report a missing object only for the included folder that lacks it; a component is rendered with the base
        homes = [*HOMES.values(), *inside]
        theirs = {title for folder in homes if folder != target for title in missing.get(folder, ())}
        for title in sorted(titles - theirs):
            yield Finding(f"{target}/{KUSTOMIZATION}", title, "resources", "is missing", target)
        for folder in inside:
            yield from _patches_of_nothing(tree, target, folder)
        yield from _shared_files(tree, target)
    yield from _forgotten(tree.root)


def _missing(tree: Tree, target: str) -> set[str]:
    there = {each.title for each in tree.objects(target=target)}
    wanted = {
        f"{kind} {place}"
        for tell, parts in TELLS
        if any(tree.objects(tell, target=target))
        for kind, places in parts.items()
        for place in places
    }
    return wanted - there


def _shared_files(tree: Tree, target: str) -> Iterator[Finding]:
    """Find namespaces that share a file: removing the other objects' file from git would remove the namespace too."""
    files = Counter(each.file for each in tree.objects(target=target))
    for each in tree.objects("Namespace", target=target):
        if files[each.file] > 1:
            yield each.finding("file", "must be alone in its file: removing a chart's file must not remove a namespace")


def _patches_of_nothing(tree: Tree, target: str, folder: str) -> Iterator[Finding]:
    """Find patches without a target object: Kustomize ignores such a patch silently."""
    for number, entry in enumerate(document_of(tree.root / folder / KUSTOMIZATION).get("patches") or []):
        chosen = entry.get("target")
        if chosen and not any(
            attribution.is_target(chosen, each.kind, each.name) for each in tree.objects(target=target)
        ):
            field = f"patches.{number}.target"
            yield Finding(
                f"{folder}/{KUSTOMIZATION}", "Kustomization", field, f"there is no {' '.join(chosen.values())}", target
            )


def _forgotten(root: Path) -> Iterator[Finding]:
    """A manifest that no kustomization.yaml names: nobody would apply it."""
    files = [path for name in FOLDERS for path in (root / name).rglob("*.y*ml")]
    named = {one.resolve() for path in files if path.name == KUSTOMIZATION for one in _named(path)}
    for path in sorted(files):
        if path.name != KUSTOMIZATION and path.resolve() not in named:
            yield Finding(str(path.relative_to(root)), "file", "name", "no kustomization.yaml names it")


def _named(path: Path) -> Iterator[Path]:
    body: dict[str, Any] = document_of(path)
    for entry in [*(body.get("resources") or []), *(body.get("patches") or []), *(body.get("configurations") or [])]:
        name = entry.get("path") if isinstance(entry, dict) else entry
        if name is not None and "://" not in name:
            yield path.parent / name
