"""Finds the file that causes a fault: the file of the object, or a patch in the rendered folder."""

import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from ops.validate.tree import KUSTOMIZATION, Finding, Tree, walk
from sluice_planner.kubernetes_objects import document, document_of


def sources(tree: Tree, findings: list[Finding]) -> list[Finding]:
    """The findings without duplicates. A fault that the file's folder does not have is attributed to the overlay."""
    targets = defaultdict(set)
    for each in findings:
        targets[each].add(each.target)
    found = set()
    for each, where in targets.items():
        if "" in where or _home(tree, each.file) in where:
            found.add(each)
        else:
            found |= set(_of_overlays(tree, each, where))
    return sorted(found)


def _home(tree: Tree, file: str) -> str:
    """The innermost rendered folder that contains a file: no other folder's patches apply there."""
    return max((name for name in tree.rendered if Path(file).is_relative_to(name)), key=len, default="none")


def _of_overlays(tree: Tree, each: Finding, targets: set[str]) -> Iterator[Finding]:
    """The fault, at the patch that causes it. Folders that include an already reported folder are skipped."""
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
            if _selects(entry.get("target"), patch, each) and any(_mentions(each, word) for word in _words(patch)):
                yield str(path.resolve().relative_to(root.resolve())) if path else f"{folder}/{KUSTOMIZATION}"


def _selects(target: dict[str, str] | None, patch: Any, each: Finding) -> bool:
    kind, _, place = each.object.partition(" ")
    name = place.rpartition("/")[2]
    if target is not None:
        return is_target(target, kind, name)
    return isinstance(patch, dict) and (patch["kind"], patch["metadata"]["name"]) == (kind, name)


def is_target(target: dict[str, str], kind: str, name: str) -> bool:
    """Whether a patch's target is an object."""
    return all(re.fullmatch(target.get(key, ".*"), value) for key, value in (("kind", kind), ("name", name)))


def _words(patch: Any) -> Iterator[str]:
    """The names of the fields that a patch writes, of either form."""
    if isinstance(patch, list):
        for operation in patch:
            yield operation["path"].rpartition("/")[2].replace("~1", "/").replace("~0", "~")
            yield from _words(operation.get("value"))
    elif isinstance(patch, dict):
        for path, value in walk(patch):
            yield from [path.rpartition(".")[2], *([value] if isinstance(value, str) else [])]


def _mentions(each: Finding, word: str) -> bool:
    return word != "" and (f".{each.field}".endswith((f".{word}", f"[{word}]")) or f"'{word}'" in each.message)
