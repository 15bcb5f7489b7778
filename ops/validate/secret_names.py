"""Rules for references to Secrets and ConfigMaps, in any field of any object: the object and the key exist."""

import re
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

from ops.validate.tree import Finding, Object, Tree, walk

# kind -> pattern for the names of fields that refer to one object of this kind, or to a list of objects
FIELDS = {
    "Secret": re.compile(r"(^secret|secretRef|secretKeyRef|secretTargetRef|imagePullSecrets)$", re.IGNORECASE),
    "ConfigMap": re.compile(r"(^configMap|configMapRef|configMapKeyRef|configMapTargetRef)$", re.IGNORECASE),
}
# kinds whose Secret the flux program creates: Flux needs this Secret to read git, so it cannot be in git
KINDS_WITHOUT_SECRET_IN_GIT = {"GitRepository"}
# Secret with the public keys of a chart's publisher, created by hand (helm-releases/components/verify)
PUBLIC_KEY_FIELD = "spec.verify.secretRef"
# name of a chart's value -> the key of the Secret that the value must select; `make secrets` writes this key
CHART_KEYS = {
    "existingPasswordKey": "password",
    "existingSecretPasswordKey": "password",
    "existingErlangCookieKey": "erlang-cookie",
    "existingSecretKey": "defs.json",
    "existingSecretACLKey": "users.acl",
}
# (kind, name) -> keys of objects that Kubernetes creates in every namespace
IN_EVERY_NAMESPACE = {("ConfigMap", "kube-root-ca.crt"): {"ca.crt"}}

Keys = dict[tuple[str, str], set[str]]
"""(namespace, name) -> keys."""
Reference = tuple[str, str, str, set[str]]
"""field, kind, name, keys."""


def check(tree: Tree, secrets: Keys) -> Iterator[Finding]:
    """Check every reference of every object. `secrets` are the Secrets that `make secrets` creates."""
    known: dict[str, Keys] = {"Secret": dict(secrets), "ConfigMap": defaultdict(set)}
    for each in tree.objects():
        if each.kind in known:
            data = (each.body.get("data") or {}) | (each.body.get("stringData") or {})
            known[each.kind].setdefault((each.namespace, each.name), set(data))
    for each in tree.objects():
        yield from _swapped_keys(each, secrets)
        for field, kind, name, keys in references(each) if each.kind not in KINDS_WITHOUT_SECRET_IN_GIT else ():
            if field == PUBLIC_KEY_FIELD:
                continue
            existing = known[kind].get((each.namespace, name), IN_EVERY_NAMESPACE.get((kind, name)))
            if existing is None:
                problem = "`make secrets` creates no" if kind == "Secret" else "there is no"
                yield each.finding(field, f"{problem} {kind} {each.namespace}/{name}")
            elif keys - existing:
                missing = ", ".join(sorted(keys - existing))
                yield each.finding(field, f"the {kind} {each.namespace}/{name} has no key {missing}")


def _swapped_keys(each: Object, secrets: Keys) -> Iterator[Finding]:
    """If a Secret has the key for a variable, parameter or chart value, no other key may be selected."""
    for path, value in walk(each.body):
        for field, name, purpose, key in _purposes(path, value) if isinstance(value, dict) else ():
            if key != purpose and purpose in secrets.get((each.namespace, name), ()):
                yield each.finding(
                    field, f"selects the key {key} of {each.namespace}/{name}, which has a key {purpose}"
                )


def _purposes(path: str, value: dict[str, Any]) -> Iterator[tuple[str, str, str, str]]:
    """(field, Secret, intended key, selected key) in an environment, a TriggerAuthentication or a chart's values."""
    source = value.get("valueFrom")
    reference = source.get("secretKeyRef") if isinstance(source, dict) else None
    if reference:
        yield f"{path}.valueFrom.secretKeyRef", reference["name"], value["name"], reference["key"]
    if {"parameter", "name", "key"} <= value.keys():
        yield path, value["name"], value["parameter"], value["key"]
    for name in CHART_KEYS.keys() & value.keys():
        yield f"{path}.{name}", value.get("existingSecret", ""), CHART_KEYS[name], value[name]


def references(each: Object) -> Iterator[Reference]:
    """The references of an object to Secrets and ConfigMaps, except optional references."""
    for path, value in walk(each.body):
        if isinstance(value, dict) and not value.get("optional"):
            yield from _in_sibling_fields(path, value)
            if "secretName" in value and not _by_cert_manager(each):
                yield f"{path}.secretName", "Secret", value["secretName"], _item_keys(value)
        for kind, fields in FIELDS.items():
            if fields.search(path.rpartition(".")[2]):
                yield from _by_field_name(path, kind, value)


def _by_field_name(path: str, kind: str, value: object) -> Iterator[Reference]:
    """References such as `secretKeyRef: {name: x, key: y}` and `imagePullSecrets: [{name: x}]`."""
    if isinstance(value, list):
        for number, one in enumerate(value):
            yield from _by_field_name(f"{path}.{number}", kind, one)
    elif isinstance(value, dict) and isinstance(value.get("name"), str) and not value.get("optional"):
        yield path, kind, value["name"], {value["key"]} if "key" in value else _item_keys(value)


def _in_sibling_fields(path: str, value: dict[str, Any]) -> Iterator[Reference]:
    """References such as `{kind: Secret, name: x, valuesKey: y}` and `{existingSecret: x, existingPasswordKey: y}`."""
    if value.get("kind") in FIELDS and isinstance(value.get("name"), str):
        yield path, value["kind"], value["name"], {value["valuesKey"]} if "valuesKey" in value else set()
    keys = {inner for key, inner in value.items() if re.fullmatch("existing.*Key", key)}
    for kind in FIELDS:
        if value.get(f"existing{kind}"):
            yield f"{path}.existing{kind}", kind, value[f"existing{kind}"], keys


def _item_keys(value: dict[str, Any]) -> set[str]:
    """The keys that a volume selects with `items`; empty if it mounts all keys."""
    return {item["key"] for item in value.get("items") or []}


def _by_cert_manager(each: Object) -> bool:
    """Whether cert-manager creates the TLS Secret: the object has an annotation of cert-manager."""
    return any(name.startswith("cert-manager.io/") for name in each.body["metadata"].get("annotations") or {})
