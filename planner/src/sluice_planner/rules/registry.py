"""The definition of a rule, and the registry of all rules.

A rule is a function that looks at one ScaledObject and what belongs to it, and yields each problem: the field, what
will happen, and the fix. `@rule` registers it by its id.
"""

from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from sluice_planner.fields import Field
from sluice_planner.kubernetes_objects import Object
from sluice_planner.manifests import command_line

Level = Literal["error", "warning", "note"]
Problem = tuple[Field, str, str]
"""The field, the consequence, and the fix."""

UNREADABLE = "SL000"


@dataclass(frozen=True)
class Assumptions:
    """Settings that manifests do not contain: time limit of tasks, capacity of a queue, HPA's sync period."""

    task_limit_s: float | None = None
    queue_max_length: int = 100_000
    sync_s: float = 15.0


@dataclass(frozen=True)
class Scaled:
    """A ScaledObject, its Deployment if there is one, and all objects of the overlay."""

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
        """The pod spec of the Deployment."""
        if self.deployment is None:
            return None
        return self.deployment.field.get("spec").get("template").get("spec")

    @property
    def containers(self) -> list[Field]:
        return [] if self.template is None else list(self.template.get("containers").items())


Check = Callable[[Scaled], Iterable[Problem]]


@dataclass(frozen=True)
class Rule:
    """A rule with its id, title and severity."""

    id: str
    words: str
    level: Level
    check: Check


RULES: dict[str, Rule] = {}


def rule(number: int, level: Level, words: str) -> Callable[[Check], Check]:
    """Register a function as a rule."""

    def register(check: Check) -> Check:
        made = Rule(f"SL{number:03}", words, level, check)
        assert made.id not in RULES  # noqa: S101 - an id is never used again
        RULES[made.id] = made
        return check

    return register


@rule(0, "error", "a field cannot be read")
def unreadable(scaled: Scaled) -> Iterator[Problem]:
    """`check_overlay` also uses this id for fields that other rules cannot read."""
    if scaled.spec.get("triggers").value in (None, []):
        yield scaled.spec.get("triggers"), "KEDA refuses a ScaledObject without triggers", "add one"


def text(field: Field) -> str:
    """A field as text; empty if it is missing or has another type, which another rule finds."""
    return field.value if isinstance(field.value, str) else ""


def number(field: Field) -> float:
    """A quoted number; 0 if it is not one."""
    try:
        return float(text(field))
    except ValueError:
        return 0.0


def others(scaled: Scaled, kind: str) -> Iterator[Object]:
    """The objects of a kind in the same namespace."""
    return scaled.object.beside(scaled.objects, kind)


def words(container: Field) -> list[str]:
    """The words of a container's command line, those of a shell script, too."""
    return [word for part in command_line(container) for word in part.split()]
