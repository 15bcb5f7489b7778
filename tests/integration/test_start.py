"""A start with refused credentials ends with one sentence; one without its servers waits for them."""

import time
from collections.abc import Iterator
from typing import NamedTuple

import pytest

from local.child import Child
from local.servers import free_ports
from tests.harness.system import System, until

WRONG = "wrong-and-long-enough"
BROKER = "CELERY_BROKER_URL: the broker at 127.0.0.1 refuses this user or password"
REDIS = "CELERY_RESULT_BACKEND: Redis at 127.0.0.1 refuses this user or password"
ENDED_S = 40.0
KINDS = pytest.mark.parametrize("kind", ["api", "worker", "worker on threads", "recorder"])


class Refusal(NamedTuple):
    """A setting with credentials that a server refuses, and what the process says."""

    setting: str
    url: str
    sentence: str
    reason: str


def start(system: System, kind: str, **environment: str) -> Child:
    """Start a process without waiting for it."""
    if kind == "api":
        return system.api(ready=False, **environment).child
    if kind == "recorder":
        return system.recorder(ready=False, **environment)
    pool = "threads" if kind == "worker on threads" else "prefork"
    return system.worker(ready=False, WORKER_POOL=pool, **environment)


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
    """By name; the users of Redis with too few permissions are made for them."""
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


@KINDS
@pytest.mark.parametrize(
    "what",
    ["password of the broker", "virtual host", "password of Redis", "no password of Redis", "permissions of Redis"],
)
def test_refused_credentials_end_a_start(shared: System, refusals: dict[str, Refusal], kind: str, what: str) -> None:
    refusal = refusals[what]
    assert_ends_with(start(shared, kind, **{refusal.setting: refusal.url}), refusal)


@pytest.mark.parametrize("kind", ["worker", "worker on threads", "recorder"])
def test_user_who_may_not_consume_ends_a_start(shared: System, refusals: dict[str, Refusal], kind: str) -> None:
    """The API's user in the worker's Secret: the broker lets it in, and refuses the consumer."""
    refusal = refusals["permissions of the broker"]
    assert_ends_with(start(shared, kind, **{refusal.setting: refusal.url}), refusal)
