"""Rules for F5 NGINX Ingress Controller: the host of an Ingress, and the names of annotations and settings.

The controller silently ignores unknown names. tests/integration/test_nginx.py checks the values with a real nginx.
"""

import difflib
import functools
from collections.abc import Iterator

from ops import pins
from ops.validate.tree import Finding, Object, Tree, at

GROUPS = ("nginx.org/", "nginx.com/", "nsm.nginx.com/", "appprotect.f5.com/", "appprotectdos.f5.com/")
ENTRIES = "values.controller.config.entries"


@functools.cache
def known(kind: str) -> frozenset[str]:
    """The names of this kind (`setting` or `annotation`) that the controller supports without NGINX Plus."""
    record = (pins.CONTROLLER_KEYS_FOLDER / f"nginx-{pins.CONTROLLER}.txt").read_text()
    lines = [line.split() for line in record.splitlines() if line.startswith(f"{kind} ")]
    return frozenset(name for _, name, _, *flags in lines if "plus" not in flags)


def check(tree: Tree) -> Iterator[Finding]:
    """Check every Ingress, and the controller's ConfigMap."""
    for each in tree.objects("Ingress"):
        for number, rule in enumerate(each.spec.get("rules") or []):
            if not rule.get("host"):
                yield each.finding(f"spec.rules.{number}.host", "is missing: the controller rejects the Ingress")
        for name in each.body["metadata"].get("annotations") or {}:
            if name.startswith(GROUPS):
                yield from _name(each, f"metadata.annotations.{name}", name, "annotation")
    for each in tree.objects("HelmRelease"):
        for name in at(each.spec, ENTRIES) or {}:
            yield from _name(each, f"spec.{ENTRIES}.{name}", name, "setting")


def _name(each: Object, field: str, name: str, kind: str) -> Iterator[Finding]:
    if name not in known(kind):
        near = difflib.get_close_matches(name, known(kind), 1)
        hint = f"; did you mean {near[0]}?" if near else ""
        yield each.finding(field, f"the controller without NGINX Plus has no such {kind}{hint}")
