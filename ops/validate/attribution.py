"""Attributes a fault to the file that causes it: the file of the object, or a patch in the rendered folder."""

import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from ops.validate.tree import KUSTOMIZATION, Finding, Tree, walk
from sluice_planner.kubernetes_objects import document, document_of


def attribute(tree: Tree, findings: list[Finding]) -> list[Finding]:
    """Remove duplicates. If the object is valid as its own folder renders it, attribute the fault to the overlay."""
    targets_of = defaultdict(set)
    for each in findings:
        targets_of[each].add(each.target)
    attributed = set()
    for each, targets in targets_of.items():
        if "" in targets or _innermost_folder(tree, each.file) in targets:
            attributed.add(each)
        else:
            attributed |= set(_in_overlays(tree, each, targets))
    return sorted(attributed)


def _innermost_folder(tree: Tree, file: str) -> str:
    """The innermost rendered folder that contains a file: it renders the file without patches of an overlay."""
    return max((name for name in tree.rendered if Path(file).is_relative_to(name)), key=len, default="none")


def _in_overlays(tree: Tree, each: Finding, targets: set[str]) -> Iterator[Finding]:
    """The fault, attributed to the patch that causes it. Skips folders that include an already reported folder."""
    seen: set[str] = set()
    for target in sorted(targets, key=lambda name: (len(folders(tree.root, name)), name)):
        inside = folders(tree.root, target)
        if not seen & {target, *inside}:
            file = next(_patches(tree.root, inside, each), f"{target}/{KUSTOMIZATION}")
            message = each.message if file == each.file else f"{each.message} (in {each.file}, rendered by {target})"
            yield replace(each, file=file, message=message)
        seen.add(target)


def folders(root: Path, target: str) -> list[str]:
    """The folder of a Kustomization, and all folders that the Kustomization includes."""
    path = root / target / KUSTOMIZATION
    body = document_of(path) if path.exists() else None
    if body is None:
        return []
    inside = (body.get("resources") or []) + (body.get("components") or [])
    names = [str((root / target / name).resolve().relative_to(root.resolve())) for name in inside if "://" not in name]
    return [target, *(folder for name in names for folder in folders(root, name))]


def _patches(root: Path, folders: list[str], each: Finding) -> Iterator[str]:
    """The files of the patches that select the object and mention the field."""
    for folder in folders:
        for entry in document_of(root / folder / KUSTOMIZATION).get("patches") or []:
            path = root / folder / entry["path"] if "path" in entry else None
            patch = document(path.read_text() if path else entry["patch"])
            mentioned = any(_mentions(each, name) for name in _field_names(patch))
            if mentioned and _selects(entry.get("target"), patch, each):
                yield str(path.resolve().relative_to(root.resolve())) if path else f"{folder}/{KUSTOMIZATION}"


def _selects(target: dict[str, str] | None, patch: Any, each: Finding) -> bool:
    kind, _, place = each.object.partition(" ")
    name = place.rpartition("/")[2]
    if target is not None:
        return is_target(target, kind, name)
    return isinstance(patch, dict) and (patch["kind"], patch["metadata"]["name"]) == (kind, name)


def is_target(target: dict[str, str], kind: str, name: str) -> bool:
    """Whether the target of a patch selects an object."""
    return all(re.fullmatch(target.get(key, ".*"), value) for key, value in (("kind", kind), ("name", name)))


def _field_names(patch: Any) -> Iterator[str]:
    """The names and texts of the fields that a patch writes: a JSON patch or a strategic merge patch."""
    if isinstance(patch, list):
        for operation in patch:
            yield operation["path"].rpartition("/")[2].replace("~1", "/").replace("~0", "~")
            yield from _field_names(operation.get("value"))
    elif isinstance(patch, dict):
        for path, value in walk(patch):
            yield from [path.rpartition(".")[2], *([value] if isinstance(value, str) else [])]


def _mentions(each: Finding, word: str) -> bool:
    return word != "" and (f".{each.field}".endswith((f".{word}", f"[{word}]")) or f"'{word}'" in each.message)
