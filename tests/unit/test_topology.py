"""The definitions of exchange, queues, policies and users."""

import base64
import hashlib
import re

import pytest

from apps.contract import topology
from tests.harness.simple_tasks import WORK_QUEUE

PASSWORDS = dict.fromkeys(topology.USERS, "a")


def policies(version: tuple[int, int]) -> dict[str, dict[str, object]]:
    return {policy["name"]: policy["definition"] for policy in topology.policies(version)}


def test_queues_have_only_their_type_as_argument() -> None:
    document = topology.definitions(vhost="/", passwords=PASSWORDS, version=(4, 3))
    assert [queue["name"] for queue in document["queues"]] == [WORK_QUEUE, "celery", "dead", "dead.parked"]
    assert all(queue["arguments"] == {"x-queue-type": "quorum"} for queue in document["queues"])
    assert document["exchanges"][0]["type"] == "topic"


def test_full_work_queues_refuse_messages_and_keep_dead_letters() -> None:
    assert policies((3, 10))["sluice-work"] == {
        "delivery-limit": 20,
        "dead-letter-exchange": "sluice",
        "dead-letter-routing-key": "dead",
        "dead-letter-strategy": "at-least-once",
        "overflow": "reject-publish",
        "max-length": 200_000,
        "message-ttl": 86_400_000,
    }


def test_newer_keys_are_only_for_newer_brokers() -> None:
    assert "consumer-timeout" not in policies((4, 2))["sluice-work"]
    assert "consumer-timeout" in policies((4, 3))["sluice-work"]
    assert "delivery-limit" not in policies((3, 13))["sluice-dead"]
    assert policies((4, 0))["sluice-dead"]["delivery-limit"] == -1


@pytest.mark.parametrize(("name", "most"), [("sluice-dead", 50_000), ("sluice-dead-parked", 10_000)])
def test_dead_letters_never_expire_and_are_refused_when_full(name: str, most: int) -> None:
    policy = policies((4, 3))[name]
    assert "message-ttl" not in policy
    assert (policy["overflow"], policy["max-length"], policy["max-length-bytes"]) == ("reject-publish", most, 1024**3)


@pytest.mark.parametrize("queue", topology.QUEUES)
def test_exactly_one_policy_applies_to_each_queue(queue: str) -> None:
    assert sum(bool(re.search(policy["pattern"], queue)) for policy in topology.policies((4, 3))) == 1


def test_passwords_are_only_included_as_hashes() -> None:
    document = topology.definitions(vhost="/", passwords=PASSWORDS | {"api": "a-password"}, version=(4, 3))
    assert "a-password" not in str(document)
    salted = base64.b64decode(document["users"][0]["password_hash"])
    assert salted[4:] == hashlib.sha256(salted[:4] + b"a-password").digest()


@pytest.mark.parametrize(
    ("user", "right", "name", "allowed"),
    [
        ("api", "write", "sluice", True),
        ("api", "write", WORK_QUEUE, False),
        ("api", "configure", "anything", False),
        ("api", "read", WORK_QUEUE, False),
        ("worker", "read", WORK_QUEUE, True),
        ("worker", "read", "dead", False),
        ("recorder", "read", "dead", True),
        ("recorder", "read", WORK_QUEUE, False),
        ("tool", "read", "dead.parked", True),
        ("tool", "read", "dead-parked", False),
        ("worker", "configure", WORK_QUEUE, False),
        ("worker", "configure", "dead", False),
        ("worker", "configure", "celery_delayed_3", True),
        ("worker", "configure", "celery@host.celery.pidbox", False),
        ("worker", "configure", "celeryev", False),
        ("keda", "read", WORK_QUEUE, False),
        ("keda", "write", "sluice", False),
    ],
)
def test_users_have_only_the_permissions_that_they_need(user: str, right: str, name: str, allowed: bool) -> None:
    document = topology.definitions(vhost="/", passwords=PASSWORDS, version=(4, 3))
    (permission,) = (entry for entry in document["permissions"] if entry["user"] == user)
    assert bool(re.search(permission[right], name)) is allowed
