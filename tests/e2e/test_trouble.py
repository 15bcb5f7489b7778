"""Under load: kill -9 of a part loses no accepted task; an outage or a wrong password does only the expected harm."""

import time
from contextlib import suppress
from typing import Any

import pytest

from apps.client import Problem
from minicluster.lifecycle import Minicluster
from ops import cluster
from ops.command import Unusable
from tests.e2e import objects
from tests.e2e.clients import Patient
from tests.e2e.provider import Provider
from tests.e2e.system import System

TASKS = 100
BEGUN = 10
DRAIN_TIMEOUT_S = 600
BACK_TIMEOUT_S = 300
PROGRAMS = (objects.API, objects.WORKER, objects.RECORDER)
# longer than liveness probes take to restart a hanging worker or recorder: 60 s, and then three failures
OUTAGE_S = 100
SUBMIT_DEADLINE_S = 1
SENTENCE = "CELERY_BROKER_URL: the broker at rabbitmq.data.svc refuses this user or password"


def life(pod: dict[str, Any]) -> tuple[str, int] | None:
    """Return (uid, restarts) of a ready pod; None if it is not ready."""
    (status,) = pod["status"].get("containerStatuses") or [{}]
    return (pod["metadata"]["uid"], status["restartCount"]) if status.get("ready") else None


def lives(name: objects.Name) -> set[tuple[str, int] | None]:
    """Return `life` of each pod of a workload."""
    return {life(pod) for pod in objects.pods(name)}


def whole(name: objects.Name) -> bool:
    """Whether as many pods of a workload are ready as it desires now."""
    ready, desired = objects.replicas(name)
    return ready == desired


def kill(provider: Provider, victim: objects.Name, pod: dict[str, Any]) -> None:
    """Send SIGKILL to a pod's process. On an existing cluster: delete the pod with a grace period of one second."""
    if isinstance(provider, Minicluster):
        provider.kill(next(objects.container_ids(pod)))
    # A restarted container keeps the pod's directories. Only a new pod shows that the data are in a volume.
    if victim == objects.RABBITMQ or not isinstance(provider, Minicluster):
        where = (pod["metadata"]["name"], f"--namespace={pod['metadata']['namespace']}")
        # without --force: the next pod could mount the volume while this pod's process still uses it
        cluster.ask("delete", "pod", *where, "--grace-period=1")


@pytest.mark.parametrize(
    "victim", [objects.WORKER, objects.API, objects.RABBITMQ, objects.KEDA], ids=lambda name: name[2]
)
def test_killing_a_part_loses_no_accepted_task(load: System, platform: Provider, victim: objects.Name) -> None:
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
    # at least once: a worker may be killed between a task's effect and the acknowledgement of its message
    assert set(load.effects()) >= set(accepted.values())


def is_refused(system: System) -> bool:
    """Whether a post is refused. An unknown outcome, such as a 502 of NGINX, raises and fails the test."""
    with system.client() as client:
        try:
            client.submit({"task": "counted_short", "name": "outage"}, deadline_s=SUBMIT_DEADLINE_S)
        except Problem as problem:
            return problem.kind == "refused"
    return False


def test_broker_outage_makes_the_api_refuse_tasks_and_restarts_no_pod(load: System) -> None:
    before = set().union(*map(lives, PROGRAMS))
    objects.scale(objects.RABBITMQ, 0)
    try:
        objects.until(lambda: not objects.pods(objects.RABBITMQ), BACK_TIMEOUT_S, "the end of the broker")
        end_s = time.monotonic() + OUTAGE_S
        while time.monotonic() < end_s:
            assert is_refused(load)
        assert whole(objects.API)
    finally:
        objects.scale(objects.RABBITMQ, 1)
    objects.rolled_out(objects.RABBITMQ)
    for name in PROGRAMS:
        objects.until(lambda name=name: whole(name), BACK_TIMEOUT_S, f"ready pods of {name[2]}")  # type: ignore[misc]
    assert before <= set().union(*map(lives, PROGRAMS))  # KEDA's fallback may have added pods
    assert load.states(load.post(["after the outage"]), DRAIN_TIMEOUT_S) == {"SUCCESS"}


@pytest.mark.parametrize("name", PROGRAMS, ids=lambda name: name[2])
def test_wrong_password_stops_a_rollout_and_keeps_the_old_pods(load: System, name: objects.Name) -> None:
    before = lives(name)
    (container,) = objects.get(name)["spec"]["template"]["spec"]["containers"]
    index = [each["name"] for each in container["env"]].index("CELERY_BROKER_URL")
    wrong = {"name": "CELERY_BROKER_URL", "value": "amqp://api:wrong-and-long-enough@rabbitmq.data.svc:5672/"}
    path = f"/spec/template/spec/containers/0/env/{index}"
    objects.patch(name, [{"op": "replace", "path": path, "value": wrong}])
    where = (f"--namespace={name[0]}", f"{name[1]}/{name[2]}")
    try:
        objects.until(lambda: any(map(failed, objects.pods(name))), BACK_TIMEOUT_S, f"the end of a new {name[2]}")
        pod = next(filter(failed, objects.pods(name)))
        objects.until(lambda: ending(pod).count(SENTENCE) == 1, BACK_TIMEOUT_S, "the message about the password")
        assert before <= lives(name)
        assert load.states(load.post(["beside a wrong password"]), DRAIN_TIMEOUT_S) == {"SUCCESS"}
    finally:
        cluster.ask("rollout", "undo", *where)
        objects.rolled_out(name)


def ending(pod: dict[str, Any]) -> str:
    """Return the log of a pod's previous container; empty while there is none."""
    where = (f"--namespace={pod['metadata']['namespace']}", pod["metadata"]["name"])
    with suppress(Unusable):
        return cluster.ask("logs", *where, "--previous")
    return ""


def failed(pod: dict[str, Any]) -> bool:
    """Whether a pod's container has failed and was restarted."""
    (status,) = pod["status"].get("containerStatuses") or [{}]
    return bool(status.get("lastState", {}).get("terminated", {}).get("exitCode"))
