"""Every reference to a Secret or a ConfigMap, in whatever field of whatever object, leads to one that there is."""

import re
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

from deploy.validate.tree import Finding, Object, Tree, walk

# a field whose value names one, alone or in each of a list
FIELDS = {
    "Secret": re.compile(r"(^secret|secretRef|secretKeyRef|secretTargetRef|imagePullSecrets)$", re.IGNORECASE),
    "ConfigMap": re.compile(r"(^configMap|configMapRef|configMapKeyRef|configMapTargetRef)$", re.IGNORECASE),
}
# a field that is the Secret's name itself: an Ingress's TLS, the charts' values
NAMES = re.compile(r"^(secretName|existingSecret)$")
# what reads git cannot have its Secret from there: the flux program makes it
OUTSIDE_OF_GIT = {"GitRepository"}
# in every namespace, by Kubernetes itself
EVERYWHERE = {("ConfigMap", "kube-root-ca.crt"): {"ca.crt"}}

Keys = dict[tuple[str, str], set[str]]
"""(namespace, name) -> keys."""
Reference = tuple[str, str, str, set[str]]
"""field, kind, name, keys."""


def check(tree: Tree, secrets: Keys) -> Iterator[Finding]:
    """Every reference of every object; `secrets` are those that `make secrets` makes."""
    known: dict[str, Keys] = {"Secret": dict(secrets), "ConfigMap": defaultdict(set)}
    for each in tree.objects():
        if each.kind in known:
            data = (each.body.get("data") or {}) | (each.body.get("stringData") or {})
            known[each.kind].setdefault((each.namespace, each.name), set(data))
    for each in tree.objects():
        for field, kind, name, keys in references(each) if each.kind not in OUTSIDE_OF_GIT else ():
            there = known[kind].get((each.namespace, name), EVERYWHERE.get((kind, name)))
            if there is None:
                made = "`make secrets` makes no" if kind == "Secret" else "there is no"
                yield each.finding(field, f"{made} {kind} {each.namespace}/{name}")
            elif keys - there:
                missing = ", ".join(sorted(keys - there))
                yield each.finding(field, f"the {kind} {each.namespace}/{name} has no key {missing}")


def references(each: Object) -> Iterator[Reference]:
    """What an object refers to; optional ones may be missing."""
    for path, value in walk(each.body):
        if isinstance(value, dict) and not value.get("optional"):
            yield from _by_kind(path, value)
            for key, inner in value.items():
                yield from _by_field(each, f"{path}.{key}".lstrip("."), key, inner, value)


def _by_kind(path: str, value: dict[str, Any]) -> Iterator[Reference]:
    """`{kind: Secret, name: x, valuesKey: y}`, as a HelmRelease's valuesFrom and Flux's substituteFrom have it."""
    if value.get("kind") in FIELDS and isinstance(value.get("name"), str):
        yield path, value["kind"], value["name"], {value["valuesKey"]} if "valuesKey" in value else set()


def _by_field(each: Object, path: str, key: str, inner: object, beside: dict[str, Any]) -> Iterator[Reference]:
    for kind, fields in FIELDS.items():
        if fields.search(key):
            listed = isinstance(inner, list)
            for number, one in enumerate(inner if isinstance(inner, list) else [inner]):
                yield from _one(f"{path}.{number}" if listed else path, kind, one)
    if NAMES.match(key) and isinstance(inner, str) and "items" not in beside and not _is_volume(path):
        if key == "existingSecret":
            yield path, "Secret", inner, {beside[name] for name in beside if re.fullmatch("existing.*Key", name)}
        elif not _by_cert_manager(each):
            yield path, "Secret", inner, set()


def _one(path: str, kind: str, value: object) -> Iterator[Reference]:
    if isinstance(value, dict) and not value.get("optional"):
        name = value.get("name") or value.get("secretName")
        keys = {value["key"]} if "key" in value else {item["key"] for item in value.get("items") or []}
        if isinstance(name, str):
            yield path, kind, name, keys


def _is_volume(path: str) -> bool:
    """`volumes.0.secret.secretName`: its parent `secret` is the reference."""
    return path.endswith(".secret.secretName")


def _by_cert_manager(each: Object) -> bool:
    """It makes the TLS Secret of an Ingress that asks for one."""
    return any(name.startswith("cert-manager.io/") for name in each.body["metadata"].get("annotations") or {})
