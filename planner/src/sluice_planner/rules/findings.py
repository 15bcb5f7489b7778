"""Runs the rules on an overlay, and returns their findings."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass

from sluice_planner.fields import Wrong
from sluice_planner.kubernetes_objects import Object
from sluice_planner.manifests import deployment_of
from sluice_planner.rules import deployments, replicas, triggers  # noqa: F401 - each registers its rules
from sluice_planner.rules.registry import RULES, UNREADABLE, Assumptions, Rule, Scaled


@dataclass(frozen=True)
class Finding:
    """A problem that a rule found in an object. `source` is the file or folder that was read."""

    rule: Rule
    source: str
    title: str
    field: str
    message: str
    fix: str


def check_overlay(objects: Collection[Object], assumed: Assumptions, ignored: Collection[str] = ()) -> list[Finding]:
    """Run all rules but the ignored ones. Raises Wrong if there is no ScaledObject, or if an ignored id is unknown."""
    for unknown in set(ignored) - set(RULES):
        raise Wrong(f"--ignore: there is no rule {unknown}")
    scaled = [each for each in objects if each.kind == "ScaledObject"]
    if not scaled:
        raise Wrong(f"{next(iter(objects)).source}: has no ScaledObject")
    found = [
        finding
        for each in scaled
        for one in sorted(RULES.values(), key=lambda one: one.id)
        if one.id not in ignored
        for finding in _findings(one, each, objects, assumed)
    ]
    return list(dict.fromkeys(found))


def _findings(one: Rule, each: Object, objects: Collection[Object], assumed: Assumptions) -> Iterator[Finding]:
    try:
        scaled = Scaled(each, deployment_of(each, objects), objects, assumed)
        for field, message, fix in one.check(scaled):
            # `where` of a field is "source: object"
            yield Finding(one, each.source, field.where.partition(": ")[2], field.path, message, fix)
    except Wrong as exc:
        where, _, message = str(exc).removeprefix(f"{each.source}: ").partition(": ")
        path, _, message = message.partition(": ")
        yield Finding(RULES[UNREADABLE], each.source, where, path, message, "use the type that the schema requires")
