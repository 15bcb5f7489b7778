"""A process with refused credentials exits with one sentence; without its servers it waits for them."""

import secrets
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from apps.contract import topology
from ops.servers.child import Child
from tests.harness.system import System, until
from tests.harness.thorough import thorough

WRONG = "wrong-and-long-enough"
BROKER = "CELERY_BROKER_URL: the broker at 127.0.0.1 refuses this user or password"
REDIS = "CELERY_RESULT_BACKEND: Redis at 127.0.0.1 refuses this user or password"
ENDED_S = 40.0
KINDS = ("api", "worker", "worker on threads", "recorder")
CONSUMERS = pytest.mark.parametrize("kind", ["worker", *thorough("worker on threads"), "recorder"])


class Refusal(NamedTuple):
    """A setting with credentials that a server refuses, the expected sentence, and the server's reason."""

    setting: str
    url: str
    sentence: str
    reason: str


def start(system: System, kind: str, **environment: str) -> Child:
    """Start a process without waiting until it is ready."""
    options: dict[str, Any] = {"ready": False, **environment}
    if kind == "api":
        return system.api(**options).child
    if kind == "recorder":
        return system.recorder(**options)
    pool = "threads" if kind == "worker on threads" else "prefork"
    return system.worker(WORKER_POOL=pool, **options)


def assert_ends_with(child: Child, refusal: Refusal) -> None:
    until(lambda: not child.alive, ENDED_S, f"the end of {child.name}, {child.log}")
    text = child.log.read_text()
    assert child.wait() > 0
    assert text.count(refusal.sentence) == 1
    assert refusal.reason in text
    assert "Traceback" not in text
    assert WRONG not in text


@pytest.fixture(scope="module")
def refusals(shared: System) -> Iterator[dict[str, Refusal]]:
    """The cases by name, including a Redis user with too few permissions."""
    broker, redis = shared.servers.rabbitmq, shared.servers.redis
    user = f"limited-{shared.vhost}"
    shared.redis.acl_setuser(user, enabled=True, passwords=[f"+{WRONG}"], commands=["+ping", "+client"], keys=["*"])
    address = f"{broker.host}:{broker.port}"
    limited = f"redis://{user}:{WRONG}@127.0.0.1:{redis.port}/0"
    yield {
        "password of the broker": Refusal(
            "CELERY_BROKER_URL", f"amqp://worker:{WRONG}@{address}/{shared.vhost}", BROKER, "ACCESS_REFUSED"
        ),
        "virtual host": Refusal(
            "CELERY_BROKER_URL", broker.url("worker", shared.passwords["worker"], "nowhere"), BROKER, "NOT_ALLOWED"
        ),
        "permissions of the broker": Refusal(
            "CELERY_BROKER_URL", broker.url("api", shared.passwords["api"], shared.vhost), BROKER, "ACCESS_REFUSED"
        ),
        "password of Redis": Refusal(
            "CELERY_RESULT_BACKEND", f"redis://:{WRONG}@127.0.0.1:{redis.port}/0", REDIS, "invalid username-password"
        ),
        "no password of Redis": Refusal(
            "CELERY_RESULT_BACKEND", f"redis://127.0.0.1:{redis.port}/0", REDIS, "Authentication required"
        ),
        "permissions of Redis": Refusal("CELERY_RESULT_BACKEND", limited, REDIS, "no permissions"),
    }
    shared.redis.acl_deluser(user)


PASSWORDS = ("password of the broker", "password of Redis")
OTHERS = ("virtual host", "no password of Redis", "permissions of Redis")


@pytest.mark.parametrize(
    ("kind", "what"),
    [
        *product(KINDS, PASSWORDS),
        *(("worker", what) for what in OTHERS),
        *thorough(*product((kind for kind in KINDS if kind != "worker"), OTHERS)),
    ],
)
def test_process_exits_if_its_credentials_are_refused(
    shared: System, refusals: dict[str, Refusal], kind: str, what: str
) -> None:
    refusal = refusals[what]
    assert_ends_with(start(shared, kind, **{refusal.setting: refusal.url}), refusal)


@CONSUMERS
def test_process_exits_if_its_user_may_not_consume(shared: System, refusals: dict[str, Refusal], kind: str) -> None:
    """The API's user in the worker's Secret: the broker accepts the connection, and refuses the consumer."""
    refusal = refusals["permissions of the broker"]
    assert_ends_with(start(shared, kind, **{refusal.setting: refusal.url}), refusal)


@CONSUMERS
def test_process_exits_if_its_queue_is_missing(system: System, kind: str) -> None:
    missing = topology.DEAD_QUEUE if kind == "recorder" else topology.DEFAULT_QUEUE
    system.servers.rabbitmq.management(f"/api/queues/{system.vhost}/{missing}", "DELETE")
    reason = f"NOT_FOUND - no queue '{missing}'"
    assert_ends_with(start(system, kind), Refusal("", "", "the broker at 127.0.0.1 lacks a queue", reason))


def test_processes_wait_for_unreachable_servers(system: System) -> None:
    """After a power cut everything starts at once, and each process must wait for its servers."""
    system.servers.rabbitmq.kill()
    system.servers.redis.kill()
    api = system.api(ready=False)
    children = [start(system, kind) for kind in ("worker", "worker on threads", "recorder")]
    until(lambda: api.get("/readyz") == 200)
    assert api.client.get("/healthz").json()["detail"] == "does not answer: broker, redis"
    assert not any(is_ready(child) for child in children)
    system.servers.redis.start()
    system.servers.rabbitmq.start()
    for child in children:
        system.wait_ready(child)
    until(lambda: api.get("/healthz") == 200)
    assert api.ended(api.accepted("sleep"))["task_status"] == "SUCCESS"


@pytest.mark.parametrize("away", [*thorough("stop"), "suspend"])
def test_api_starts_in_bounded_time_without_its_servers(system: System, away: str) -> None:
    """The API listens after 5 s of attempts and a last one of 2 s; the rest is a margin for a busy machine."""
    getattr(system.servers.rabbitmq, away)()
    getattr(system.servers.redis, away)()
    api = system.api(ready=False)
    until(lambda: api.get("/livez") == 200, 20)
    assert api.get("/readyz") == 200


def test_running_processes_retry_when_the_broker_refuses_their_password(system: System) -> None:
    """A password may be rotated first at the broker: running processes wait until it is valid again."""
    ask, user, password = system.servers.rabbitmq.management, f"own-{system.vhost}", secrets.token_urlsafe(24)
    ask(f"/api/users/{user}", "PUT", {"password": password, "tags": ""})
    worker = topology.USERS["worker"]
    granted = {"configure": worker.configure, "write": worker.write, "read": ".*"}  # rights of all three parts together
    ask(f"/api/permissions/{system.vhost}/{user}", "PUT", granted)
    url = system.servers.rabbitmq.url(user, password, system.vhost)
    api = system.api(CELERY_BROKER_URL=url)
    children = [start(system, kind, CELERY_BROKER_URL=url) for kind in ("worker", "worker on threads", "recorder")]
    for child in children:
        system.wait_ready(child)
    until(lambda: len(system.broker_connections(user)) >= len(children) + 1)
    ask(f"/api/users/{user}", "PUT", {"password": WRONG, "tags": ""})
    system.close_broker_connections(user)
    until(lambda: api.post("sleep").json().get("reason") == "broker-away")
    assert (api.get("/readyz"), api.get("/healthz")) == (200, 503)
    until(lambda: not any(is_ready(child) for child in children))
    for child in (api.child, *children):
        until(lambda log=child.log: "ACCESS_REFUSED" in log.read_text(), what=f"a line of the refusal, {child.log}")  # type: ignore[misc]
    ask(f"/api/users/{user}", "PUT", {"password": password, "tags": ""})
    for child in children:
        system.wait_ready(child)  # also asserts that it did not exit
    until(lambda: api.get("/healthz") == 200)
    assert api.ended(api.accepted("sleep"))["task_status"] == "SUCCESS"
    ask(f"/api/users/{user}", "DELETE")


def test_running_processes_retry_when_redis_refuses_their_password(system: System) -> None:
    user, password = f"own-{system.vhost}", secrets.token_urlsafe(24)
    allowed: dict[str, Any] = {"enabled": True, "categories": ["+@all"], "keys": ["*"], "channels": ["*"]}
    system.redis.acl_setuser(user, passwords=[f"+{password}"], **allowed)
    url = f"redis://{user}:{password}@127.0.0.1:{system.servers.redis.port}/0"
    api = system.api(CELERY_RESULT_BACKEND=url)
    children = [start(system, kind, CELERY_RESULT_BACKEND=url) for kind in ("worker", "recorder")]
    for child in children:
        system.wait_ready(child)
    system.redis.acl_setuser(user, passwords=[f"-{password}"], **allowed)
    system.redis.execute_command("CLIENT", "KILL", "USER", user)  # type: ignore[no-untyped-call]
    until(lambda: api.get("/healthz") == 503)
    task_id = api.accepted("sleep")
    assert api.post("sleep", key="k").json()["reason"] == "redis-away"
    assert api.client.get(f"/tasks/{task_id}").json()["type"] == "urn:sluice:problem:results-unavailable"
    assert (api.get("/readyz"), api.get("/livez")) == (200, 200)
    system.redis.acl_setuser(user, passwords=[f"+{password}"], **allowed)
    until(lambda: api.get("/healthz") == 200)
    assert api.ended(task_id)["task_status"] == "SUCCESS"
    assert all(child.alive for child in children)
    system.redis.acl_deluser(user)


def is_ready(child: Child) -> bool:
    return Path(child.env["READINESS_FILE"]).exists()
