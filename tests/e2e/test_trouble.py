"""kill -9 of each part under load: every task that was accepted ends."""

from typing import Any

import pytest

from deploy import cluster
from tests.e2e import objects
from tests.e2e.clients import Patient
from tests.e2e.cluster.bare import Bare
from tests.e2e.cluster.provider import Provider
from tests.e2e.system import System

TASKS = 100
BEGUN = 10
DRAIN_TIMEOUT_S = 600
BACK_TIMEOUT_S = 300


def life(pod: dict[str, Any]) -> tuple[str, int] | None:
    """A pod that is ready, and how often it was started again; None if it is not ready."""
    (status,) = pod["status"].get("containerStatuses") or [{}]
    return (pod["metadata"]["uid"], status["restartCount"]) if status.get("ready") else None


def lives(name: objects.Name) -> set[tuple[str, int] | None]:
    """Those of a workload."""
    return {life(pod) for pod in objects.pods(name)}


def whole(name: objects.Name) -> bool:
    """Whether a workload has as many ready pods as it should, however many these are by now."""
    ready, desired = objects.replicas(name)
    return ready == desired


def kill(provider: Provider, victim: objects.Name, pod: dict[str, Any]) -> None:
    """SIGKILL for a pod's process; where the node is out of reach, a second after the pod is told to end."""
    if isinstance(provider, Bare):
        provider.kill(next(objects.container_ids(pod)))
    # a container that starts again has its pod's folders; only another pod shows that what must stay is in a volume
    if victim == objects.RABBITMQ or not isinstance(provider, Bare):
        where = (pod["metadata"]["name"], f"--namespace={pod['metadata']['namespace']}")
        # not by force: the next pod could have the volume before this one's process has left it
        cluster.ask("delete", "pod", *where, "--grace-period=1")


@pytest.mark.parametrize(
    "victim", [objects.WORKER, objects.API, objects.RABBITMQ, objects.KEDA], ids=lambda name: name[2]
)
def test_killed_part_loses_no_task(load: System, platform: Provider, victim: objects.Name) -> None:
    load.forget()
    ids = load.post([f"before-{number}" for number in range(TASKS)])
    with Patient(load, "during") as clients:
        load.drained(BEGUN, DRAIN_TIMEOUT_S)
        pod = next(each for each in objects.pods(victim) if life(each))
        kill(platform, victim, pod)
        objects.until(lambda: life(pod) not in lives(victim), BACK_TIMEOUT_S, f"the end of one {victim[2]}")
        objects.until(lambda: whole(victim), BACK_TIMEOUT_S, f"the return of {victim[2]}")
    accepted = {**{each: f"before-{number}" for number, each in enumerate(ids)}, **clients.accepted}

    assert len(clients.accepted) > 0
    assert load.states(list(accepted), DRAIN_TIMEOUT_S) == {"SUCCESS"}
    # a killed worker may have ended a task that it could not say so of: at least once
    assert set(load.effects()) >= set(accepted.values())
