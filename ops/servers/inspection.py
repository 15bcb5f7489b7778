"""Compares a broker that is given by its URL with the definitions of the contract."""

import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote, unquote, urlsplit

import kombu

from apps.contract import topology
from ops.command import Unusable
from ops.management import Management

NOT_FOUND = 404


def check(url: str, management_url: str | None) -> None:
    """Compare a broker with the contract. Raises Unusable with the first difference, or if the broker refuses us.

    `management_url` may contain its own credentials; its default is port 15672 of the broker's host. Of several hosts
    in `url` only the first is compared: they are nodes of one broker.
    """
    url = url.partition(";")[0]
    for difference in _missing(url):
        raise Unusable(f"The broker in CELERY_BROKER_URL lacks {difference}: import this project's definitions.")
    management = management_of(url, management_url)
    try:
        for difference in _different(management, vhost_of(url)):
            raise Unusable(
                f"The broker in CELERY_BROKER_URL is not as expected: {difference}. Import this project's definitions."
            )
    except OSError as exc:
        raise Unusable(
            f"The broker's policies cannot be read at {management.url} ({exc}): set RABBITMQ_MANAGEMENT_URL to its "
            "management API, http://user:password@host:15672, with a user that has the tag `monitoring`."
        ) from exc


def management_of(url: str, management_url: str | None) -> Management:
    """The management API at `management_url`, or at the default port of the AMQP host.

    The user is that of `management_url` if it has one, otherwise the broker's.
    """
    broker = urlsplit(url)
    given = urlsplit(management_url or f"http://{broker.hostname}:15672")
    user = given if given.username else broker
    address = f"{given.scheme}://{given.netloc.rpartition('@')[2]}{given.path}"
    return Management(address, unquote(user.username or ""), unquote(user.password or ""))


def vhost_of(url: str) -> str:
    """The virtual host in an AMQP URL; "/" if there is none."""
    return unquote(urlsplit(url).path[1:]) or "/"


def _missing(url: str) -> Iterator[str]:
    """Names of the exchange and the queues that do not exist, found by passive declares.

    Raises Unusable if the broker does not answer or refuses us.
    """
    connection = kombu.Connection(url, connect_timeout=5)
    try:
        with connection:
            if not _exists(connection, "exchange_declare", topology.EXCHANGE, type="topic"):
                yield f"the exchange {topology.EXCHANGE}"
            for queue in topology.QUEUES:
                if not _exists(connection, "queue_declare", queue):
                    yield f"the queue {queue}"
    except (OSError, *connection.connection_errors, *connection.channel_errors) as exc:
        raise Unusable(
            f"The broker in CELERY_BROKER_URL cannot be used ({exc}): check its address, user and vhost."
        ) from exc


def _exists(connection: kombu.Connection, declare: str, name: str, **arguments: str) -> bool:
    channel = connection.channel()  # a new one each time, because a failed declare closes its channel
    try:
        getattr(channel, declare)(name, passive=True, **arguments)
    except connection.channel_errors as exc:
        if getattr(exc, "reply_code", None) != NOT_FOUND:
            raise
        return False
    channel.close()
    return True


def _different(management: Management, vhost: str) -> Iterator[str]:
    """The differences between the broker and the contract, each as a clause of a sentence."""
    place = quote(vhost, safe="")
    exchange = management(f"/api/exchanges/{place}/{topology.EXCHANGE}")
    if exchange["type"] != "topic":
        yield f"the exchange {topology.EXCHANGE} is of type {exchange['type']}, not topic"
    version = management.version
    expected = topology.policies((version[0], version[1]))
    # Not effective_policy_definition of the queues: it is a statistic that is updated with a delay of seconds.
    there = management(f"/api/policies/{place}")
    for name in topology.QUEUES:
        queue = management(f"/api/queues/{place}/{name}")
        yield from _different_queue(queue)
        bindings = management(f"/api/bindings/{place}/e/{topology.EXCHANGE}/q/{name}")
        if name not in {binding["routing_key"] for binding in bindings}:
            yield f"the queue {name} is not bound to {topology.EXCHANGE} by the key {name}"
    for name in topology.QUEUES:
        yield from _different_policy(name, _policy(there, name), _policy(expected, name))


def _different_queue(queue: dict[str, Any]) -> Iterator[str]:
    there = queue.get("type", "classic")
    if there != topology.QUEUE_ARGUMENTS["x-queue-type"]:
        yield f"the queue {queue['name']} is of type {there}, not {topology.QUEUE_ARGUMENTS['x-queue-type']}"


def _policy(policies: list[dict[str, Any]], queue: str) -> dict[str, Any]:
    """The definition of the policy with the highest priority that matches the queue's name."""
    others = ("exchanges", "classic_queues", "streams")
    matching = [
        policy for policy in policies if re.search(policy["pattern"], queue) and policy["apply-to"] not in others
    ]
    best: dict[str, Any] = max(matching, key=lambda policy: int(policy["priority"]), default={"definition": {}})
    return dict(best["definition"])


def _different_policy(queue: str, there: dict[str, Any], expected: dict[str, Any]) -> Iterator[str]:
    """Compare a queue's policy. Strings must be equal. Numbers must be set, and operators may choose their values.

    The message TTL has an upper bound, because messages must not outlive their task ids.
    """
    for key, value in expected.items():
        if key not in there:
            yield f"the policy of {queue} does not set {key}"
        elif isinstance(value, str) and there[key] != value:
            yield f"the policy of {queue} sets {key} to {there[key]}, not {value}"
        elif key == "message-ttl" and there[key] > value:
            yield f"the policy of {queue} sets {key} to {there[key]} ms, more than {value}"
