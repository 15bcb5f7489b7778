"""Decides which Ingresses the controller serves, and why it rejects the others."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from minicluster.stand_ins.ingress_controller import controller_settings
from minicluster.stand_ins.ingress_controller.record import FORMS, is_of

Ingress = Mapping[str, Any]


def admitted(ingresses: Sequence[Ingress], *, empty_host: bool = False) -> tuple[list[Ingress], list[str]]:
    """Returns (the Ingresses to serve, each with the rules of the hosts that it owns; a line per rejected Ingress).

    A host belongs to the oldest Ingress that has it. An Ingress that owns none of its hosts is rejected.
    """
    served: list[Ingress] = []
    rejected = []
    taken: set[str] = set()
    for each in _oldest_first(ingresses):
        errors = rejections(each, empty_host=empty_host)
        rules = [rule for rule in each["spec"].get("rules", []) if rule.get("host", "") not in taken]
        if not errors and not rules:
            errors = ["All hosts are taken by other resources"]
        if errors:
            rejected.append(f"Rejected Ingress {title(each)}: {'; '.join(errors)}")
            continue
        taken |= {rule.get("host", "") for rule in rules}
        served.append({**each, "spec": {**each["spec"], "rules": rules}})
    return served, rejected


def title(ingress: Ingress) -> str:
    """The namespace and name of an Ingress."""
    return f"{ingress['metadata']['namespace']}/{ingress['metadata']['name']}"


def _oldest_first(ingresses: Sequence[Ingress]) -> list[Ingress]:
    """Sort Ingresses by time of creation. Within a second, the greater UID comes first."""
    by_uid = sorted(ingresses, key=lambda each: each["metadata"].get("uid", ""), reverse=True)
    return sorted(by_uid, key=lambda each: each["metadata"].get("creationTimestamp", ""))


def rejections(ingress: Ingress, *, empty_host: bool = False) -> list[str]:
    """The errors of one Ingress, independent of other Ingresses."""
    found = []
    keys = controller_settings.known("annotation")
    for name, value in (ingress["metadata"].get("annotations") or {}).items():
        if name in keys and keys[name].rejected:
            found += _annotation(name, value)
    return [*found, *_spec(ingress["spec"], empty_host=empty_host)]


def _annotation(name: str, value: str) -> list[str]:
    key = controller_settings.known("annotation")[name]
    field = f"annotations.{name}"
    if key.form == "snippet":
        return [f"{field}: Forbidden: snippet specified but snippets feature is not enabled"]
    if key.plus:
        return [f"{field}: Forbidden: annotation requires NGINX Plus"]
    if not value:
        return [f"{field}: Required value"]
    return [] if is_of(key.form, value) else [f"{field}: Invalid value: {value!r}: must be {FORMS[key.form][0]}"]


def _spec(spec: Mapping[str, Any], *, empty_host: bool) -> list[str]:
    rules = spec.get("rules") or []
    if not rules:
        return ["spec.rules: Required value"]
    found = []
    hosts = [rule.get("host", "") for rule in rules]
    for number, (rule, host) in enumerate(zip(rules, hosts, strict=True)):
        field = f"spec.rules[{number}]"
        if not host and not empty_host:
            found.append(f"{field}.host: Required value")
        elif host in hosts[:number]:
            found.append(f"{field}.host: Duplicate value: {host!r}")
        for place, path in enumerate((rule.get("http") or {}).get("paths", [])):
            found += _path(path, f"{field}.http.paths[{place}]")
    return found


def _path(path: Mapping[str, Any], field: str) -> list[str]:
    found = []
    text, kind = path.get("path", ""), path.get("pathType")
    if not text and kind != "ImplementationSpecific":
        found.append(f"{field}.path: Required value: path is required for Exact and Prefix PathTypes")
    elif text and (not re.fullmatch(r"/[^\s;]*", text) or text.startswith("//") or ".." in re.split(r"[/\\]", text)):
        found.append(f"{field}.path: Invalid value: {text!r}")
    backend = path["backend"]
    if "resource" in backend:
        found.append(f"{field}.backend.resource: Forbidden: resource backends are not supported")
    elif "service" not in backend:
        found.append(f"{field}.backend.service: Required value: service backend must be specified")
    return found
