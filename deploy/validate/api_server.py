"""Asks the API server's own code what it would refuse, or warn of, and no schema says.

That is names, ranges, enums, what is named twice, what is named and not there. The code is Kubernetes' (apiserver/, in
Go), of the version in its go.mod.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from deploy.run import output
from deploy.tools import compiled
from deploy.validate import scaling, schemas
from deploy.validate.tree import Finding, Object, Tree, once

SOURCE = Path(__file__).parent / "apiserver"
TIMEOUT_S = 60

# Objects that passed in this process: tests validate nearly the same tree many times.
_VALID: set[str] = set()


def check(tree: Tree) -> Iterator[Finding]:
    """Every object of every target, and the HorizontalPodAutoscaler that KEDA makes of each ScaledObject."""
    asked = once(tree)
    for each in tree.objects("ScaledObject"):
        asked.setdefault(json.dumps(scaling.autoscaler(each), sort_keys=True), []).append(each)
    new = {text: same for text, same in asked.items() if text not in _VALID}
    for (text, same), faults in zip(new.items(), _answers(list(new)) if new else [], strict=True):
        for each in same:
            yield from (_finding(each, fault) for fault in faults)
        if not faults:
            _VALID.add(text)


def _answers(texts: list[str]) -> list[list[dict[str, str]]]:
    """For each object what is wrong with it."""
    definitions = schemas.folder() / schemas.DEFINITIONS
    answer = output(compiled(SOURCE), definitions, text=f"[{','.join(texts)}]", timeout_s=TIMEOUT_S)
    found: list[list[dict[str, str]]] = json.loads(answer)
    return found


def _finding(each: Object, fault: dict[str, Any]) -> Finding:
    field, message = fault["field"], fault["message"]
    warned = re.match(r"(spec\.[^\s:]+): (.*)", message)  # a warning has its field in its text
    if not field and warned:
        field, message = warned.groups()
    # the value of a whole object says less than the sentence after it
    return each.finding(_path(each, field) or "object", re.sub(r"\{\".*\}", "{...}", message))


def _path(each: Object, field: str) -> str:
    """`ports[0].name` as `ports.0.name`; a field of KEDA's HorizontalPodAutoscaler as the ScaledObject's."""
    path = re.sub(r"\[(\d+)\]", r".\1", field)
    if each.kind == "ScaledObject":
        for ours, theirs in scaling.AUTOSCALER_FIELDS.items():
            path = re.sub(rf"^{theirs}\b", ours, path)
    return path
