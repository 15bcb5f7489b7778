"""What a rule is, and how all of them are run.

A rule is a function that looks at one ScaledObject with what belongs to it, and yields what is wrong: the field, what
will happen, and the fix. `@rule` gives it its id.
"""

from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from planner.fields import Field, Wrong
from planner.manifests import command_line, deployment_of
from planner.overlay import Object

Level = Literal["error", "warning", "note"]
Problem = tuple[Field, str, str]
"""The field, what will happen, and the fix."""

UNREADABLE = "SL000"


@dataclass(frozen=True)
class Assumptions:
    """What the manifests do not say: how long tasks may run, what a queue holds, how often the HPA syncs."""

    task_limit_s: float | None = None
    queue_max_length: int = 100_000
    sync_s: float = 15.0


@dataclass(frozen=True)
class Scaled:
    """A ScaledObject, its Deployment if that is there, and everything else."""

    object: Object
    deployment: Object | None
    objects: Collection[Object]
    assumed: Assumptions

    @property
    def spec(self) -> Field:
        return self.object.field.get("spec")

    @property
    def triggers(self) -> list[Field]:
        return list(self.spec.get("triggers").default([]).items())

    @property
    def rabbitmq(self) -> list[Field]:
        """The metadata of the triggers on RabbitMQ."""
        return [each.get("metadata").default({}) for each in self.triggers if each.get("type").value == "rabbitmq"]

    @property
    def minimum(self) -> int:
        return self.spec.get("minReplicaCount").default(0).integer()

    @property
    def maximum(self) -> int:
        return self.spec.get("maxReplicaCount").default(100).integer()

    @property
    def behavior(self) -> Field:
        return self.spec.get("advanced").default({}).get("horizontalPodAutoscalerConfig").default({}).get("behavior")

    @property
    def template(self) -> Field | None:
        """The Deployment's pod."""
        if self.deployment is None:
            return None
        return self.deployment.field.get("spec").get("template").get("spec")

    @property
    def containers(self) -> list[Field]:
        return [] if self.template is None else list(self.template.get("containers").items())


Check = Callable[[Scaled], Iterable[Problem]]


@dataclass(frozen=True)
class Rule:
    """Its id, its name in words, how bad it is."""

    id: str
    words: str
    level: Level
    check: Check


@dataclass(frozen=True)
class Finding:
    """What a rule found. `source` is the file or folder that was read."""

    rule: Rule
    source: str
    title: str
    field: str
    message: str
    fix: str


RULES: dict[str, Rule] = {}


def rule(number: int, level: Level, words: str) -> Callable[[Check], Check]:
    """Make a function a rule."""

    def register(check: Check) -> Check:
        made = Rule(f"SL{number:03}", words, level, check)
        assert made.id not in RULES  # noqa: S101 - ids are for ever
        RULES[made.id] = made
        return check

    return register


@rule(0, "error", "a field cannot be read")
def unreadable(scaled: Scaled) -> Iterator[Problem]:
    """What other rules could not read; see `check_overlay`."""
    if scaled.spec.get("triggers").value in (None, []):
        yield scaled.spec.get("triggers"), "KEDA refuses a ScaledObject without triggers", "add one"


def check_overlay(objects: Collection[Object], assumed: Assumptions, ignored: Collection[str] = ()) -> list[Finding]:
    """Everything that is wrong, rule by rule. Wrong if there is no ScaledObject, or an ignored id is unknown."""
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
            # a field's place is "source: object"
            yield Finding(one, each.source, field.where.partition(": ")[2], field.path, message, fix)
    except Wrong as exc:
        where, _, message = str(exc).removeprefix(f"{each.source}: ").partition(": ")
        path, _, message = message.partition(": ")
        yield Finding(RULES[UNREADABLE], each.source, where, path, message, "write what the schema asks for")


def text(field: Field) -> str:
    """A field as text; nothing where there is none, or where it is something else, which another rule finds."""
    return field.value if isinstance(field.value, str) else ""


def number(field: Field) -> float:
    """A quoted number; 0 where it is none."""
    try:
        return float(text(field))
    except ValueError:
        return 0.0


def others(scaled: Scaled, kind: str) -> Iterator[Object]:
    """The objects of a kind in the same namespace."""
    return (each for each in scaled.objects if each.kind == kind and each.namespace == scaled.object.namespace)


def words(container: Field) -> list[str]:
    """A container's command line; a shell's script is split too."""
    return [word for part in command_line(container) for word in part.split()]
