"""What is simulated: a Deployment that a ScaledObject scales, as plain data."""

from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

from sluice_planner.hpa_controller import Behavior
from sluice_planner.keda import Trigger

# task slots of all pods of a workload
SLOTS_MAX = 1_000_000

FallbackBehavior = Literal["static", "currentReplicas", "currentReplicasIfHigher", "currentReplicasIfLower"]


@dataclass(frozen=True)
class Fallback:
    """The replicas to go to once more than so many questions in a row had no answer."""

    failures: int
    replicas: int
    behavior: FallbackBehavior


@dataclass(frozen=True)
class Scaler:
    """A ScaledObject. `behavior` None is the HPA's legacy path."""

    minimum: int
    maximum: int
    idle: int | None
    poll_s: int
    cooldown_s: int
    initial_cooldown_s: int
    fallback: Fallback | None
    behavior: Behavior | None
    triggers: tuple[Trigger, ...]

    @property
    def hpa_minimum(self) -> int:
        """The HPA does not know 0: KEDA goes there itself."""
        return max(self.minimum, 1)

    @property
    def rest(self) -> int:
        """The replicas when nothing is to be done for long."""
        return self.minimum if self.idle is None else self.idle

    @property
    def polls(self) -> bool:
        """Whether KEDA's own polling decides anything."""
        return self.minimum == 0 or self.idle is not None or any(trigger.cached for trigger in self.triggers)


@dataclass(frozen=True)
class Pod:
    """A worker pod: tasks at once, messages taken per task slot, requests in CPUs and bytes, grace period.

    `prefetch_waits`: messages of each queue are taken, and wait in the pod for what it runs.
    """

    concurrency: int
    prefetch: int
    cpu: Fraction
    memory: Fraction
    grace_s: int
    prefetch_waits: bool = False


@dataclass(frozen=True)
class Workload:
    """One ScaledObject with its Deployment. `assumed` says what the manifests left open."""

    name: str
    where: str
    scaler: Scaler
    pod: Pod
    assumed: tuple[str, ...] = ()

    @property
    def queues(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(trigger.queue for trigger in self.scaler.triggers))
