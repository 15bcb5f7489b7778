"""Renders every Kustomization and component of a tree, and records the source file of each object."""

import dataclasses
import json
import os
import tempfile
from collections.abc import Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from ops.command import Unusable, run
from ops.tools import kubectl
from sluice_planner import kubernetes_objects
from sluice_planner.kubernetes_objects import document, document_of, documents

ORIGIN = "config.kubernetes.io/origin"
FOLDERS = ("kustomize", "helm-releases", "clusters", "loadtest/cluster-platform")
KUSTOMIZATION = "kustomization.yaml"
BASE = "kustomize/base"
# top-level folder of a component -> the base that is rendered together with the component
COMPONENT_BASES = {"kustomize": BASE, "helm-releases": "helm-releases"}
RENDER_TIMEOUT_S = 60


@dataclass(frozen=True, order=True)
class Finding:
    """A fault and its place: file, object in the file, field of the object."""

    file: str
    object: str
    field: str
    message: str
    target: str = dataclasses.field(default="", compare=False)  # the rendered folder; "" if none

    def __str__(self) -> str:
        return f"{self.file}: {self.object}: {self.field}: {self.message}"


@dataclass(frozen=True)
class Object(kubernetes_objects.Object):
    """A rendered object. `source` is its file in the tree, `target` the rendered folder."""

    target: str

    @property
    def file(self) -> str:
        """The source file, relative to the root of the tree."""
        return self.source

    @property
    def group(self) -> str:
        """The API group of the object; "" for the core group."""
        return str(self.body.get("apiVersion")).rpartition("/")[0]

    @property
    def spec(self) -> dict[str, Any]:
        return dict(self.body.get("spec") or {})

    def finding(self, field: str, message: str) -> Finding:
        """A fault of this object."""
        return Finding(self.file, self.title, field, message, self.target)


@dataclass(frozen=True)
class Tree:
    """The rendered objects of all Kustomizations below `root`, by target."""

    root: Path
    rendered: dict[str, list[Object]]
    findings: list[Finding]
    parts: dict[str, list[Object]] = dataclasses.field(default_factory=dict)
    """The objects of folders that only delete objects of another folder. The rules check only the other folder."""

    def objects(self, kind: str | None = None, *, target: str | None = None) -> Iterator[Object]:
        """The objects of a kind, in one target or in all. A part is included only if it is the `target`."""
        folders = self.rendered if target not in self.parts else self.parts
        for name, objects in folders.items():
            if target in {None, name}:
                yield from (each for each in objects if kind in {None, each.kind})


def once(tree: Tree) -> dict[str, list[Object]]:
    """JSON of each distinct object, as the API server receives it -> the equal objects of all targets."""
    texts: dict[str, list[Object]] = {}
    for each in tree.objects():
        texts.setdefault(json.dumps(_decrypted(each.body), sort_keys=True), []).append(each)
    return texts


def _decrypted(body: dict[str, Any]) -> dict[str, Any]:
    """The object after decryption by Flux. Empty texts replace the encrypted values."""
    if "sops" not in body:
        return body
    known = {key: value for key, value in body.items() if key != "sops"}
    return known | {group: dict.fromkeys(known[group], "") for group in ("data", "stringData") if known.get(group)}


def without_nulls(value: Any, *, but: str = "") -> Any:
    """A copy without null fields, which the API server and Helm ignore. Lists get {} for null. `but` is not changed."""
    if isinstance(value, list):
        return [{} if each is None else without_nulls(each, but=but) for each in value]
    if not isinstance(value, dict):
        return value
    fields = ((key, inner) for key, inner in value.items() if inner is not None)
    return {key: inner if key == but else without_nulls(inner, but=but) for key, inner in fields}


def at(fields: Any, path: str) -> Any:
    """The value at a path; None if it does not exist. A key may contain dots: `labels.app.kubernetes.io/name`."""
    if not isinstance(fields, dict) or path in fields:
        return fields.get(path) if isinstance(fields, dict) else None
    name, _, rest = path.partition(".")
    return at(fields.get(name), rest) if rest else None


def walk(value: object, path: str = "") -> Iterator[tuple[str, Any]]:
    """(path, value) of the value itself and of all values inside it, with paths such as `spec.containers.0.name`."""
    yield path, value
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield from walk(inner, f"{path}.{key}".lstrip("."))


def render(root: Path, targets: Collection[str] = ()) -> Tree:
    """Render the target folders, by default all. Errors and warnings of Kustomize become findings."""
    kustomizations = {
        str(path.parent.relative_to(root)): document_of(path)
        for folder in FOLDERS
        for path in sorted((root / folder).rglob(KUSTOMIZATION))
    }
    chosen = {name: each for name, each in kustomizations.items() if name in (targets or _entries(kustomizations))}
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        results = list(pool.map(lambda item: _target(root, *item), chosen.items()))
    rendered = {name: objects for name, objects, _ in results}
    parts = {name: rendered.pop(name) for name in chosen if _is_part(root / name, chosen[name])}
    return Tree(root, rendered, [finding for *_, findings in results for finding in findings], parts)


def _is_part(folder: Path, kustomization: dict[str, Any]) -> bool:
    """Whether the patches of a folder only delete objects of another folder."""
    patches = [folder / patch["path"] for patch in kustomization.get("patches") or [] if "path" in patch]
    return bool(patches) and all("$patch: delete" in path.read_text() for path in patches if path.exists())


def _entries(kustomizations: dict[str, dict[str, Any]]) -> set[str]:
    """The folders to render: all except folders that a parent folder includes directly or indirectly."""

    def reached(name: str) -> Iterator[str]:
        for resource in (kustomizations[name].get("resources") or []) + (kustomizations[name].get("components") or []):
            inside = os.path.normpath(Path(name, resource))
            if inside in kustomizations:
                yield inside
                yield from reached(inside)

    parts = {each for name in kustomizations for each in reached(name) if Path(each).is_relative_to(name)}
    return set(kustomizations) - parts


def _target(root: Path, name: str, kustomization: dict[str, Any]) -> tuple[str, list[Object], list[Finding]]:
    folder = root / name
    if kustomization["kind"] == "Component":  # a component cannot be rendered alone
        parts = {"resources": [root / COMPONENT_BASES[Path(name).parts[0]]], "components": [folder]}
    else:
        parts = {"resources": [folder]}
    try:
        return name, _build(root, name, parts), []
    except Unusable as exc:
        return name, [], [Finding(f"{name}/{KUSTOMIZATION}", "Kustomization", "build", str(exc))]


def _build(root: Path, target: str, parts: dict[str, list[Path]]) -> list[Object]:
    """Render through a temporary Kustomization that annotates each object with its origin."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name).resolve()
        around: dict[str, Any] = {
            key: [os.path.relpath(path, folder) for path in paths] for key, paths in parts.items()
        }
        around["buildMetadata"] = ["originAnnotations"]
        (folder / KUSTOMIZATION).write_text(yaml.safe_dump(around))
        return [_object(root, target, folder, body) for body in documents(_kustomize(folder))]


def _kustomize(folder: Path) -> str:
    done = run(kubectl(), "kustomize", folder, timeout_s=RENDER_TIMEOUT_S)
    # warnings, for example about deprecated fields, are errors too
    if done.returncode != 0 or done.stderr.strip():
        raise Unusable(done.stderr.strip())
    return done.stdout


def _object(root: Path, target: str, folder: Path, body: dict[str, Any]) -> Object:
    annotations = body["metadata"]["annotations"]
    origin = document(annotations.pop(ORIGIN))
    if not annotations:
        del body["metadata"]["annotations"]
    file = (folder / (origin.get("path") or origin["configuredIn"])).resolve().relative_to(root.resolve())
    return Object(str(file), without_nulls(body, but="values"), target)
