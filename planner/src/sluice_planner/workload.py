"""The data of a workload: a Deployment that a ScaledObject scales."""

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
    """The replicas to use after more than `failures` consecutive failed requests."""

    failures: int
    replicas: int
    behavior: FallbackBehavior


@dataclass(frozen=True)
class Scaler:
    """A ScaledObject. A `behavior` of None means the HPA's legacy algorithm."""

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
        """The HPA's minimum, at least 1: KEDA itself scales to 0."""
        return max(self.minimum, 1)

    @property
    def rest(self) -> int:
        """The replicas after a long idle time."""
        return self.minimum if self.idle is None else self.idle

    @property
    def polls(self) -> bool:
        """Whether KEDA's polling has an effect."""
        return self.minimum == 0 or self.idle is not None or any(trigger.cached for trigger in self.triggers)


@dataclass(frozen=True)
class Pod:
    """A worker pod: task slots, prefetched messages per slot, requests in CPUs and bytes, grace period.

    `prefetch_waits`: the pod prefetches messages of each queue, behind its running tasks.
    """

    concurrency: int
    prefetch: int
    cpu: Fraction
    memory: Fraction
    grace_s: int
    prefetch_waits: bool = False


@dataclass(frozen=True)
class Workload:
    """A ScaledObject with its Deployment. `assumed` has sentences about settings that the manifests lack."""

    name: str
    where: str
    scaler: Scaler
    pod: Pod
    assumed: tuple[str, ...] = ()

    @property
    def queues(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(trigger.queue for trigger in self.scaler.triggers))
