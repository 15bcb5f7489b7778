"""Asks the API server's own code what it would refuse, or warn of, and no schema says.

That is names, ranges, enums, what is named twice, what is named and not there. The code is Kubernetes' (apiserver/, in
Go), of the version in its go.mod.
"""

import json
import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deploy.run import output
from deploy.tools import compiled
from deploy.validate import pieces, scaling, schemas
from deploy.validate.tree import Finding, Object, Tree, once

SOURCE = Path(__file__).parent / "apiserver"
TIMEOUT_S = 60
FIELD = re.compile(r"(?P<field>spec\.[^\s:]+): (?P<message>.*)")
UNKNOWN = re.compile(r"strict decoding error: (?P<message>unknown field \"(?P<field>[^\"]+)\")")

# Objects that passed in this process: tests validate nearly the same tree many times.
_VALID: set[str] = set()


@dataclass(frozen=True)
class Sent:
    """Who is told what is wrong with something that was sent, and by which of its own fields."""

    owner: Object
    fields: dict[str, str]

    def finding(self, fault: dict[str, str]) -> Finding:
        """What was said of it."""
        field, message = fault["field"], fault["message"]
        named = FIELD.match(message) or UNKNOWN.search(
            message
        )  # a warning's field is in its text, an unknown one's too
        if not field and named:
            field, message = named["field"], named["message"]
        path = re.sub(r"\[(\d+)\]", r".\1", field)  # `ports[0].name` as `ports.0.name`
        for theirs, ours in self.fields.items():
            path = re.sub(rf"^{theirs}\b", ours, path)
        # the value of a whole object says less than the sentence after it
        return self.owner.finding(path or "object", re.sub(r"\{\".*\}", "{...}", message))


def check(tree: Tree) -> Iterator[Finding]:
    """Every object of every target, and what others will make of it."""
    asked: dict[str, list[Sent]] = defaultdict(list)
    for text, same in once(tree).items():
        asked[text] += [Sent(each, {}) for each in same]
    for each in tree.objects():
        for body, fields in _made_of(each):
            asked[json.dumps(body, sort_keys=True)].append(Sent(each, fields))
    new = {text: sent for text, sent in asked.items() if text not in _VALID}
    for (text, sent), faults in zip(new.items(), _answers(list(new)) if new else [], strict=True):
        yield from (each.finding(fault) for each in sent for fault in faults)
        if not faults:
            _VALID.add(text)


def _made_of(each: Object) -> Iterator[tuple[dict[str, Any], dict[str, str]]]:
    """(what others make of an object, its field -> the object's own)."""
    if each.kind == "ScaledObject":
        yield scaling.autoscaler(each), scaling.AUTOSCALER_FIELDS
    if each.kind == "HelmRelease":
        yield from pieces.pods_of_values(each)


def _answers(texts: list[str]) -> list[list[dict[str, str]]]:
    """For each object what is wrong with it."""
    definitions = schemas.folder() / schemas.DEFINITIONS
    answer = output(compiled(SOURCE), definitions, text=f"[{','.join(texts)}]", timeout_s=TIMEOUT_S)
    found: list[list[dict[str, str]]] = json.loads(answer)
    return found
