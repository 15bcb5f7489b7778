"""Validates objects with kubeconform, against the schemas of Kubernetes and of the pinned KEDA and Flux.

`python -m ops.validate.schemas` builds both, so that `make validate` then works offline.
"""

import hashlib
import json
import re
import shutil
import tempfile
from collections.abc import Iterator
from importlib import metadata, resources
from pathlib import Path
from typing import Any

from ops import pins
from ops.command import Unusable, command_line, run
from ops.tools import built, cache, locked, module_folders
from ops.validate.tree import Finding, Object, Tree, once
from sluice_planner.kubernetes_objects import document_of

PROGRAM = "kubeconform"
# its exit status if an object is invalid; its output says why
INVALID = 1
TIMEOUT_S = 120
REFERENCE = re.compile(r'"#/\$defs/([^"]+)"')
ERROR = re.compile(r"- at '([^']*)': (.*?)(?=\s+- at '|$)", re.DOTALL)

# Objects that passed in this process: tests validate nearly the same tree many times.
_VALID: set[str] = set()


def check(tree: Tree) -> Iterator[Finding]:
    """Validate the objects against the oldest and the newest Kubernetes that is supported."""
    new = {text: same for text, same in once(tree).items() if text not in _VALID}
    if not new:
        return
    with tempfile.TemporaryDirectory() as name:
        files = {str(Path(name) / f"{number}.json"): same for number, same in enumerate(new.values())}
        for path, text in zip(files, new, strict=True):
            Path(path).write_text(text)
        found = [finding for version in pins.KUBERNETES for finding in _kubeconform(version, Path(name), files)]
    if not found:
        _VALID.update(new)
    yield from found


def _kubeconform(version: str, folder_: Path, files: dict[str, list[Object]]) -> Iterator[Finding]:
    places = [f"{folder()}/v{version}.0/" + "{{.ResourceKind}}{{.KindSuffix}}.json"]
    places += [f"{folder()}/crds/" + "{{.ResourceKind}}{{.KindSuffix}}.json"]
    locations = [argument for place in places for argument in ("-schema-location", place)]
    options = ("-strict", "-output", "json", "-kubernetes-version", f"{version}.0", *locations)
    done = run(built(PROGRAM), *options, folder_, timeout_s=TIMEOUT_S)
    if done.returncode not in {0, INVALID}:
        raise Unusable(f"{PROGRAM} failed: {done.stderr.strip()}")
    results = json.loads(done.stdout).get("resources", [])
    for result in results:
        for each in files[result["filename"]]:
            yield from _findings(each, result, version)


def _findings(each: Object, result: dict[str, Any], version: str) -> Iterator[Finding]:
    # not its list of errors, which ends at the first reference to another schema
    errors = [error for error in ERROR.findall(result["msg"]) if error[1] != "validation failed"]
    for path, message in errors or [("", result["msg"])]:
        yield each.finding(path.strip("/").replace("/", ".") or "object", f"{message} (Kubernetes {version})")


def folder() -> Path:
    """The folder of the schemas, built if it does not exist."""
    package = metadata.version("kubernetes-validate")
    key = hashlib.sha256(repr((pins.CRD_MODULES, pins.KUBERNETES, package, Path(__file__).read_text())).encode())
    made = cache() / f"schemas-{key.hexdigest()[:12]}"
    with locked(made):
        if not made.exists():
            unfinished = made.with_name(f"{made.name}.unfinished")
            shutil.rmtree(unfinished, ignore_errors=True)
            _make(unfinished)
            unfinished.replace(made)
    return made


def _make(into: Path) -> None:
    source = resources.files("kubernetes_validate") / "kubernetes-json-schema"
    for version in pins.KUBERNETES:
        # without -strict a misspelt field passes
        with resources.as_file(source / f"v{version}.0-local-strict") as schemas:
            if not schemas.is_dir():
                raise Unusable(f"kubernetes-validate has no schemas of Kubernetes {version}: update ops/pins.py.")
            _copy(schemas, into / f"v{version}.0")
    (into / "crds").mkdir()
    for module in module_folders():
        for path in (module / "config" / "crd" / "bases").glob("*.yaml"):
            _write_crd(document_of(path), into / "crds")


def _copy(schemas: Path, into: Path) -> None:
    """Copy each schema with the definitions that it refers to alone: kubeconform compiles all of them each time."""
    into.mkdir(parents=True)
    definitions = json.loads(_local(schemas / "_definitions.json"))["$defs"]
    for path in schemas.glob("*.json"):
        schema = json.loads(_local(path))
        schema.pop("$id", None)
        reached, new = {}, REFERENCE.findall(json.dumps(schema))
        while new:
            name = new.pop()
            if name not in reached:
                reached[name] = definitions[name]
                new += REFERENCE.findall(json.dumps(definitions[name]))
        (into / path.name).write_text(json.dumps(schema | {"$defs": reached}))


def _local(path: Path) -> str:
    """The schema, with its definitions in the same file instead of at an address of a server."""
    return path.read_text().replace("/api/_definitions.json", "")


def _write_crd(crd: dict[str, Any], into: Path) -> None:
    spec = crd["spec"]
    group = spec["group"].partition(".")[0]
    for version in spec["versions"]:
        if version["served"] and not version.get("deprecated"):
            schema = _closed(version["schema"]["openAPIV3Schema"])
            name = f"{spec['names']['kind']}-{group}-{version['name']}.json".lower()
            (into / name).write_text(json.dumps(schema))


def _closed(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema without other properties than those it names, unless the CRD allows them.

    It does not change what is inside anyOf and its like, where each branch names only some of the properties.
    """
    closed = dict(schema)
    if schema.get("x-kubernetes-int-or-string"):
        closed["type"] = ["integer", "string"]
    if isinstance(schema.get("items"), dict):
        closed["items"] = _closed(schema["items"])
    if isinstance(schema.get("additionalProperties"), dict):
        closed["additionalProperties"] = _closed(schema["additionalProperties"])
    if "properties" in schema:
        closed["properties"] = {name: _closed(each) for name, each in schema["properties"].items()}
        if "additionalProperties" not in schema and not schema.get("x-kubernetes-preserve-unknown-fields"):
            closed["additionalProperties"] = False
    return closed


def main() -> None:
    """Build what validating needs. Other programs are built by the first verb that needs them."""
    built(PROGRAM)
    folder()


if __name__ == "__main__":
    command_line(main)
