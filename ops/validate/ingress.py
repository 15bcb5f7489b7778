"""Rules for what F5 NGINX Ingress Controller reads: hosts, annotations, and the keys of its ConfigMap.

It ignores a name that it does not know, and keeps its default for a value that it cannot parse; an Ingress with a wrong
annotation or without a host is not served, and an event says why. ops/validate/controller_keys.py records the names.
"""

import difflib
import functools
from collections.abc import Iterator

from ops import pins
from ops.validate.controller import FORMS, Key, is_of, keys
from ops.validate.tree import Finding, Object, Tree, at

PREFIX = "nginx.org/"
GROUPS = (PREFIX, "nginx.com/", "nsm.nginx.com/", "appprotect.f5.com/", "appprotectdos.f5.com/")
ENTRIES = "values.controller.config.entries"
TEMPLATES = {"main-template", "ingress-template", "virtualserver-template", "transportserver-template"}
# What the controller hands on as it is: nginx parses it, and does not start, or does not reload, with another form.
RAW = {
    name: form
    for form, names in {
        "time": "fail-timeout keepalive-timeout proxy-connect-timeout proxy-read-timeout proxy-send-timeout "
        "worker-shutdown-timeout",
        "number": "map-hash-bucket-size map-hash-max-size server-names-hash-bucket-size server-names-hash-max-size "
        "worker-connections worker-rlimit-nofile",
        "size": "proxy-max-temp-file-size upstream-zone-size",
        "offset": "client-max-body-size",
        "status": "limit-req-reject-code",
        "level": "limit-req-log-level",
        "networks": "set-real-ip-from",
    }.items()
    for name in names.split()
}


@functools.cache
def known(kind: str) -> dict[str, Key]:
    """Name -> Key of each `setting` or `annotation`."""
    return keys((pins.CONTROLLER_KEYS_FOLDER / f"nginx-{pins.CONTROLLER}.txt").read_text(), kind)


def check(tree: Tree) -> Iterator[Finding]:
    """Every Ingress, and what the controller itself is told."""
    for each in tree.objects("Ingress"):
        yield from _hosts(each)
        for name, value in (each.body["metadata"].get("annotations") or {}).items():
            if name.startswith(GROUPS):
                yield from _annotation(each, name, value)
    for each in tree.objects("HelmRelease"):
        for name, value in (at(each.spec, ENTRIES) or {}).items():
            yield from _setting(each, name, value)
        yield from _files(each)


def _hosts(each: Object) -> Iterator[Finding]:
    """A rule without a host is rejected, and so is the second rule of a host."""
    hosts = [rule.get("host") for rule in each.spec.get("rules") or []]
    if not hosts:
        yield each.finding("spec.rules", "is missing: the controller rejects an Ingress without rules")
    for number, host in enumerate(hosts):
        field = f"spec.rules.{number}.host"
        if not host:
            yield each.finding(field, "is missing: the controller rejects a rule without a host")
        elif host in hosts[:number]:
            yield each.finding(field, f"the controller rejects a second rule for {host}")


def _annotation(each: Object, name: str, value: str) -> Iterator[Finding]:
    field = f"metadata.annotations.{name}"
    key = known("annotation").get(name)
    if key and key.form == "snippet":
        yield each.finding(field, "snippets are off in the controller: it would not serve this Ingress")
    else:
        yield from _value(each, field, name, value, "annotation")


def _setting(each: Object, name: str, value: str) -> Iterator[Finding]:
    field = f"spec.{ENTRIES}.{name}"
    if name in TEMPLATES:
        yield each.finding(field, "replaces the controller's own template: nothing here would be what was tested")
    else:
        yield from _value(each, field, name, value, "setting")


def _value(each: Object, field: str, name: str, value: str, kind: str) -> Iterator[Finding]:
    there = known(kind)
    if name not in there:
        near = difflib.get_close_matches(name, there, 1)
        hint = f"; did you mean {near[0]}?" if near else ""
        yield each.finding(field, f"the controller has no such {kind}{hint}")
        return
    if there[name].plus:
        yield each.finding(field, "needs NGINX Plus: the controller ignores it, or rejects the Ingress")
    form = RAW.get(name.removeprefix(PREFIX), there[name].form)
    if not is_of(form, str(value)):
        yield each.finding(field, f"must be {FORMS[form][0]}, not {value}")


def _files(each: Object) -> Iterator[Finding]:
    """Each connection is a file."""
    entries = at(each.spec, ENTRIES) or {}
    files, connections = (str(entries.get(name, "")) for name in ("worker-rlimit-nofile", "worker-connections"))
    if files.isdigit() and connections.isdigit() and int(files) <= int(connections):
        yield each.finding(f"spec.{ENTRIES}.worker-rlimit-nofile", f"must be above worker-connections, {connections}")
