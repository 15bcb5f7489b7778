"""The operations that each credential needs, and the operations that the real servers must refuse to it."""

import hashlib
import os
import re
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

import amqp  # type: ignore[import-untyped]
import pytest
import redis
import yaml
from amqp.exceptions import AccessRefused  # type: ignore[import-untyped]
from kombu.transport.native_delayed_delivery import MAX_LEVEL, calculate_routing_key, level_name
from redis.exceptions import NoPermissionError, NoScriptError

from apps.api.idempotency import CLAIM, SETTLE
from apps.api.quotas import RENEW
from apps.contract import redis_users, states, topology
from ops.credentials import Credentials
from ops.management import Management, Refused
from ops.secrets import contents
from ops.servers.child import Child
from ops.servers.ports import free_ports
from ops.servers.programs import ensure
from tests.harness.system import ROOT, System, until

WORK, PARKED = topology.WORK_QUEUES[0], topology.PARKED_QUEUE
DELAY = "celery_delayed_0"


def channel_as(system: System, user: str) -> amqp.Channel:
    host = f"127.0.0.1:{system.servers.rabbitmq.port}"
    connection = amqp.Connection(host, user, system.passwords[user], virtual_host=system.vhost, confirm_publish=True)
    connection.connect()
    return connection.channel()


def publish(
    key: str, exchange: str = topology.EXCHANGE, *, mandatory: bool = False, **properties: Any
) -> Callable[[amqp.Channel], None]:
    """Publish a message; only the broker's permission check matters, not its route."""

    def call(channel: amqp.Channel) -> None:
        channel.basic_publish_confirm(
            amqp.Message(b"x", **properties), exchange=exchange, routing_key=key, mandatory=mandatory
        )

    return call


def get(queue: str) -> Callable[[amqp.Channel], None]:
    return lambda channel: channel.basic_get(queue, no_ack=True)


def consume(queue: str) -> Callable[[amqp.Channel], None]:
    return lambda channel: channel.basic_consume(queue, callback=lambda _: None)


def count(queue: str) -> Callable[[amqp.Channel], None]:
    return lambda channel: channel.queue_declare(queue, passive=True)


def purge(queue: str) -> Callable[[amqp.Channel], None]:
    return lambda channel: channel.queue_purge(queue)


def delete(queue: str) -> Callable[[amqp.Channel], None]:
    return lambda channel: channel.queue_delete(queue)


def declare(queue: str) -> Callable[[amqp.Channel], None]:
    return lambda channel: channel.queue_declare(queue, durable=True, auto_delete=False)


def bind(queue: str, key: str) -> Callable[[amqp.Channel], None]:
    return lambda channel: channel.queue_bind(queue, topology.EXCHANGE, key)


def unbind(queue: str, key: str) -> Callable[[amqp.Channel], None]:
    return lambda channel: channel.queue_unbind(queue, topology.EXCHANGE, key)


def ask_for_exchange(channel: amqp.Channel) -> None:
    channel.exchange_declare(topology.EXCHANGE, "topic", passive=True)


def delete_exchange(channel: amqp.Channel) -> None:
    channel.exchange_delete(topology.EXCHANGE)


def declare_exchange(channel: amqp.Channel) -> None:
    channel.exchange_declare("own", "topic", auto_delete=False)


# user -> operations over AMQP that it needs
AMQP_MUST: dict[str, dict[str, Callable[[amqp.Channel], None]]] = {
    "api": {"publish a task": publish(WORK), "ask for the exchange": ask_for_exchange},
    "worker": {
        "take a task": get(WORK),
        "publish a retry": publish(WORK),
        "publish a delayed retry": publish(f"0.{WORK}", exchange=DELAY),
        "give a message back for a while": publish(
            calculate_routing_key(2, WORK), exchange=level_name(MAX_LEVEL), mandatory=True
        ),
        "publish a dead letter": publish(topology.DEAD_QUEUE),
        "bind a queue for delayed retries": bind(WORK, f"#.{WORK}"),
    },
    "recorder": {"take a dead letter": get(topology.DEAD_QUEUE), "park": publish(PARKED)},
    "tool": {
        "count parked messages": count(PARKED),
        "take parked messages": consume(PARKED),
        "publish a task": publish(WORK),
    },
    "keda": {},
}

# operations of the administrator only
NOBODY: dict[str, Callable[[amqp.Channel], None]] = {
    **{f"delete {queue}": delete(queue) for queue in topology.QUEUES},
    "declare a queue": declare("own"),
    "delete the exchange": delete_exchange,
    "declare an exchange": declare_exchange,
    "publish past the exchange": publish(WORK, exchange=""),
    "unbind a work queue": unbind(WORK, WORK),
    "bind a work queue to dead letters": bind(WORK, topology.DEAD_QUEUE),
    "publish to an exchange of the broker": publish(WORK, exchange="amq.topic"),
}


def others(*allowed: str) -> dict[str, Callable[[amqp.Channel], None]]:
    """Return the operations that read or purge any queue except these."""
    queues = [queue for queue in (*topology.QUEUES, DELAY) if queue not in allowed]
    return {f"read {queue}": get(queue) for queue in queues} | {f"purge {queue}": purge(queue) for queue in queues}


def publishing(*allowed: str) -> dict[str, Callable[[amqp.Channel], None]]:
    """Return the operations that publish to any queue except these."""
    return {f"publish to {key}": publish(key) for key in (*topology.QUEUES, "other.key") if key not in allowed}


# user -> operations that the broker must refuse. A consumer may also purge: RabbitMQ cannot separate the two.
AMQP_MUST_NOT: dict[str, dict[str, Callable[[amqp.Channel], None]]] = {
    # It may publish with an unbound key: the broker returns the message.
    "api": NOBODY | others() | publishing(*topology.WORK_QUEUES, "other.key"),
    "worker": NOBODY | others(*topology.WORK_QUEUES, DELAY) | publishing(*topology.WORK_QUEUES, topology.DEAD_QUEUE),
    "recorder": NOBODY | others(topology.DEAD_QUEUE) | publishing(PARKED),
    "tool": NOBODY | others(PARKED) | publishing(*topology.WORK_QUEUES),
    "keda": NOBODY | others() | publishing() | {"ask for the exchange to declare it": declare_exchange},
}


def cases(table: dict[str, dict[str, Any]]) -> list[Any]:
    return [
        pytest.param(user, call, id=f"{user}: {what}") for user, calls in table.items() for what, call in calls.items()
    ]


def every_fourth(parameters: list[Any]) -> list[Any]:
    """The same parameters; those between are thorough."""
    return [
        each if number % 4 == 0 else pytest.param(*each.values, id=each.id, marks=pytest.mark.thorough)
        for number, each in enumerate(parameters)
    ]


@pytest.fixture(scope="module")
def ours(shared: System) -> System:
    """A system whose worker has declared Celery's delay queues."""
    shared.worker().stop()
    return shared


@pytest.mark.parametrize(("user", "call"), cases(AMQP_MUST))
def test_broker_permits_the_operations_that_a_user_needs(
    ours: System, user: str, call: Callable[[amqp.Channel], None]
) -> None:
    channel = channel_as(ours, user)
    call(channel)
    channel.connection.close()


# Each opens a connection: `make test` refuses every fourth, the thorough tests the others.
@pytest.mark.parametrize(("user", "call"), every_fourth(cases(AMQP_MUST_NOT)))
def test_broker_refuses_all_other_operations(ours: System, user: str, call: Callable[[amqp.Channel], None]) -> None:
    channel = channel_as(ours, user)
    with pytest.raises(AccessRefused):
        call(channel)
    channel.connection.close()


@pytest.mark.parametrize("user", ["api", "worker", "recorder", "tool"])
def test_publishing_with_another_user_id_is_refused(ours: System, user: str) -> None:
    key = PARKED if user == "recorder" else WORK
    channel = channel_as(ours, user)
    with pytest.raises(amqp.exceptions.PreconditionFailed, match="user_id"):
        publish(key, user_id="admin")(channel)
    channel.connection.close()


@pytest.mark.parametrize("user", topology.USERS)
def test_user_cannot_connect_to_another_virtual_host(ours: System, user: str) -> None:
    host = f"127.0.0.1:{ours.servers.rabbitmq.port}"
    stranger = amqp.Connection(host, user, ours.passwords[user], virtual_host="/")
    with pytest.raises(amqp.exceptions.NotAllowed):
        stranger.connect()
    stranger.collect()


def management_as(system: System, user: str) -> Management:
    return Management(system.servers.rabbitmq.management.url, user, system.passwords[user])


@pytest.mark.parametrize("user", sorted(topology.USERS.keys() - {"keda"}))
def test_management_api_is_open_only_to_keda(ours: System, user: str) -> None:
    with pytest.raises(Refused) as refused:
        management_as(ours, user)("/api/whoami")
    assert refused.value.status == 401


def test_keda_reads_queue_lengths_like_its_scaler(ours: System) -> None:
    """GET /api/queues/<vhost>/<queue> with the user in the URL; KEDA's scaler uses `messages` and the rates."""
    channel = channel_as(ours, "api")
    publish(WORK)(channel)
    channel.connection.close()
    ask = management_as(ours, "keda")
    until(lambda: ask(f"/api/queues/{ours.vhost}/{quote(WORK, safe='')}").get("messages", 0) >= 1)
    assert ask(f"/api/queues/{ours.vhost}/{topology.DEFAULT_QUEUE}")["name"] == topology.DEFAULT_QUEUE
    listed = ask(f"/api/queues/{ours.vhost}?page=1&use_regex=true&pagination=false&name=.*&page_size=100")
    assert {each["name"] for each in listed["items"]} >= set(topology.QUEUES)


# The refusal is either a status or a text.
NOT_AUTHORISED = "answered 401|access_refused|ACCESS_REFUSED"
GET_MESSAGE = {"count": 1, "ackmode": "ack_requeue_true", "encoding": "auto"}
PUBLISH = {"properties": {}, "routing_key": WORK, "payload": "x", "payload_encoding": "string"}
# (method, path, body); {vhost} is the system's
KEDA_MUST_NOT: dict[str, tuple[str, str, object]] = {
    "purge a work queue": ("DELETE", f"/api/queues/{{vhost}}/{WORK}/contents", None),
    "read an input": ("POST", f"/api/queues/{{vhost}}/{WORK}/get", GET_MESSAGE),
    "read a parked message": ("POST", f"/api/queues/{{vhost}}/{PARKED}/get", GET_MESSAGE),
    "delete a queue": ("DELETE", f"/api/queues/{{vhost}}/{WORK}", None),
    "make a queue": ("PUT", "/api/queues/{vhost}/own", {}),
    "publish": ("POST", f"/api/exchanges/{{vhost}}/{topology.EXCHANGE}/publish", PUBLISH),
    "delete the exchange": ("DELETE", f"/api/exchanges/{{vhost}}/{topology.EXCHANGE}", None),
    "unbind a queue": (
        "DELETE", f"/api/bindings/{{vhost}}/e/{topology.EXCHANGE}/q/{WORK}/{WORK}", None,
    ),
    "set a policy": (
        "PUT", "/api/policies/{vhost}/own", {"pattern": ".*", "definition": {"max-length": 1}, "apply-to": "queues"},
    ),
    "read definitions": ("GET", "/api/definitions", None),
    "read users": ("GET", "/api/users", None),
    "read permissions": ("GET", "/api/permissions", None),
    "make a user": ("PUT", "/api/users/own", {"password": "own-password", "tags": "administrator"}),
    "give itself rights": (
        "PUT", "/api/permissions/{vhost}/keda", {"configure": ".*", "write": ".*", "read": ".*"},
    ),
    "read nodes": ("GET", "/api/nodes", None),
    "delete the virtual host": ("DELETE", "/api/vhosts/{vhost}", None),
}  # fmt: skip


@pytest.mark.parametrize(("method", "path", "body"), KEDA_MUST_NOT.values(), ids=KEDA_MUST_NOT)
def test_management_api_refuses_all_other_calls_to_keda(ours: System, method: str, path: str, body: object) -> None:
    before = ours.depth_messages(WORK)
    with pytest.raises(Refused) as refused:
        management_as(ours, "keda")(path.format(vhost=ours.vhost), method, body)
    assert re.search(NOT_AUTHORISED, str(refused.value))
    assert ours.depth_messages(WORK) == before


# ---- Redis

ID = "01890a5d-ac96-774b-bcce-b302099a8057-000000000000001f"
RECORD_KEYS = states.record_keys(ID)
RECORD, EARLIER, ENDED = RECORD_KEYS.record, RECORD_KEYS.earlier, RECORD_KEYS.ended
REQUEUED, KEYED, EARLIER_KEYED = states.requeued_key(ID), b"sl:k:one", "sluice:key:one"
QUOTA, REPLICAS, REPORTS = "sluice:quota:tests", "sluice:replicas", "sluice:reports:one"
EVERY_KEY = (RECORD, EARLIER, ENDED, REQUEUED, KEYED, EARLIER_KEYED, QUOTA, REPLICAS, REPORTS)
END, BEGUN = states.channel(ID), states.begun_channel(ID)
NOW = RECORD_KEYS.script_arguments(1.5, 60, 60)


def inside(command: str, key: object, *arguments: object) -> tuple[object, ...]:
    """Return a script that runs one command."""
    said = "".join(f", {argument!r}" for argument in arguments)
    return ("EVAL", f"return redis.call('{command}', KEYS[1]{said})", 1, key)


def loaded(source: Any, *operands: object) -> tuple[object, ...]:
    """Return the call of a script by its hash."""
    return ("EVALSHA", hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest(), *operands)


def script(source: str, *more: object, other: str = "") -> tuple[object, ...]:
    """Return the call of a script of `states` for the record of ID."""
    keys = RECORD_KEYS.script_keys(ID, "tests", *filter(None, (other,)))
    return ("EVAL", source, len(keys), *keys, *NOW, *more)


FOREIGN = states.record_keys("of another program").script_keys("of another program", None)
READ = ("EVAL", states.READ, 3, RECORD, EARLIER, REQUEUED)

# Commands of the scripts `begin`, `end` and `cancel`. EARLIER is also written by version 0.1.
WRITTEN = [
    inside("GET", RECORD), inside("SET", RECORD, "x"), inside("DEL", RECORD), inside("EXISTS", EARLIER),
    inside("HMGET", EARLIER, "state"), inside("HSET", EARLIER, "state", "STARTED"), inside("HINCRBY", EARLIER, "n", 1),
    inside("EXPIRE", EARLIER, 60), inside("DEL", EARLIER), inside("SISMEMBER", ENDED, 1), inside("SADD", ENDED, 1),
    inside("EXPIREAT", ENDED, 2**32), inside("HINCRBY", QUOTA, "period", -1), inside("EXPIRE", QUOTA, 60),
    ("EVAL", "return redis.call('PUBLISH', KEYS[1], 'x')", 1, END),
]  # fmt: skip
READING = [
    READ, loaded(*READ[1:]), inside("GETRANGE", RECORD, 0, 9), inside("STRLEN", RECORD),
    inside("HMGET", EARLIER, "state"), inside("HSTRLEN", EARLIER, "meta"), inside("HGET", EARLIER, "meta"),
    inside("HGET", REQUEUED, "requeued_as"),
]  # fmt: skip

# user -> commands that its part runs in addition to those of the tests with a whole system
REDIS_MUST: dict[str, list[tuple[Any, ...]]] = {
    "default": [("PING",)],
    "api": [
        ("PING",), ("INFO", "memory"), *READING, *WRITTEN, script(states.CANCEL, ID, 60, other=states.CANCEL_CHANNEL),
        inside("SETRANGE", RECORD, 0, "C"), inside("PUBLISH", states.CANCEL_CHANNEL, ID),
        ("GETRANGE", RECORD, 15, -1), ("HGET", EARLIER, "meta"), ("SISMEMBER", ENDED, 1), ("HGETALL", EARLIER),
        ("EVAL", CLAIM, 2, KEYED, EARLIER_KEYED, b"d" * 10, b"u" * 16, 60_000, 60, "1", "d"),
        ("EVAL", SETTLE, 3, KEYED, EARLIER_KEYED, END, 1, "1", "1", 0),
        *(inside(command, KEYED, *more) for command, *more in (("GET",), ("SET", "x", "KEEPTTL"), ("DEL",))),
        inside("HSET", EARLIER_KEYED, "claims", 1), inside("HINCRBY", EARLIER_KEYED, "claims", 1),
        ("EVAL", RENEW, 3, QUOTA, REPLICAS, REPORTS, "one", "tests", 1, 10**9, 10, 10, 1, "1890a5d", 1),
        inside("HDEL", QUOTA, "1890a5d"),
        ("PUBLISH", END, "settled"), ("SUBSCRIBE", END, BEGUN, redis_users.IDLE), ("UNSUBSCRIBE", END),
    ],
    "worker": [
        ("PING",), *WRITTEN, script(states.BEGIN, "publish", 60, 1, other=BEGUN), script(states.GIVE_BACK, "publish"),
        script(states.END, "publish", "SUCCESS", "1"), script(states.END_WHEN_FULL, "publish", "FAILURE", "{}"),
        ("EVAL", states.END, len(FOREIGN), *FOREIGN, *NOW, "publish", "SUCCESS", "1"), loaded("return 1", 1, RECORD),
        inside("SETRANGE", RECORD, 2, "x"), ("GETRANGE", RECORD, 0, 0), ("HEXISTS", EARLIER, "cancel"),
        ("SUBSCRIBE", states.CANCEL_CHANNEL), ("UNSUBSCRIBE", states.CANCEL_CHANNEL),
        ("INFO", "memory"), ("CONFIG", "GET", "proto-max-bulk-len"),
    ],
    "recorder": [
        ("PING",), *READING, *WRITTEN, ("SCRIPT", "LOAD", states.END_WHEN_FULL), ("HGET", EARLIER, "state"),
        script(states.END_WHEN_FULL, "publish", "FAILURE", "{}"),
        ("EVAL", states.END_WHEN_FULL, len(FOREIGN), *FOREIGN, *NOW, "publish", "FAILURE", "{}"),
    ],
    "tool": [
        ("PING",), ("HSETNX", REQUEUED, "requeued_as", "new"), ("EXPIRE", REQUEUED, 60), ("HGET", REQUEUED, "x"),
        ("HINCRBY", QUOTA, "period", 1), ("EXPIRE", QUOTA, 60),
    ],
}  # fmt: skip

# refusal of a command, or of a command in a script
NO_PERMISSION = r"(?i)no permissions|NOPERM|ACL failure|can't (run this command|access)"
ADMINISTRATION: list[tuple[Any, ...]] = [
    ("FLUSHALL",), ("FLUSHDB",), ("KEYS", "*"), ("SCAN", 0), ("RANDOMKEY",), ("CONFIG", "RESETSTAT"),
    ("CONFIG", "SET", "maxmemory-policy", "allkeys-lru"), ("ACL", "LIST"), ("ACL", "SETUSER", "own", "on", "+@all"),
    ("CLIENT", "LIST"), ("CLIENT", "KILL", "TYPE", "normal"), ("MONITOR",), ("SHUTDOWN",),
    ("REPLICAOF", "127.0.0.1", "1"), ("SAVE",), ("BGREWRITEAOF",), ("SCRIPT", "FLUSH"), ("FUNCTION", "LIST"),
    ("MODULE", "LIST"), ("SLOWLOG", "GET"), ("LATENCY", "RESET"), ("SWAPDB", 0, 1), ("MIGRATE", "h", 1, "k", 0, 1),
    ("UNLINK", RECORD), ("RENAME", RECORD, b"sl:t:other"), ("DUMP", RECORD), ("SMEMBERS", ENDED),
    ("PSUBSCRIBE", "*"), ("SUBSCRIBE", "other"), ("PUBLISH", "other", "x"), ("SET", "other", "x"), ("DEL", "other"),
    ("GET", "other"), ("HGET", "other", "state"), ("SET", "sl:other", "x"), ("HGET", "sluice:other", "state"),
    ("EVAL", "return redis.call('KEYS', '*')", 0), ("EVAL", "return redis.call('HSET', 'other', 'a', 'b')", 0),
    inside("HSET", "other", "a", "b"), inside("HSET", "", "a", "b"),
]  # fmt: skip
NO_CONFIG: tuple[str, ...] = ("CONFIG", "GET", "*")
REDIS_MUST_NOT: dict[str, list[tuple[Any, ...]]] = {
    "default": [
        NO_CONFIG, ("GET", RECORD), ("HGET", EARLIER, "state"), ("SMEMBERS", ENDED), ("KEYS", "*"), ("SUBSCRIBE", END),
        ("PUBLISH", END, "x"), ("EVAL", "return 1", 0), ("SCRIPT", "FLUSH"), ("INFO",), ("ACL", "LIST"), ("SHUTDOWN",),
    ],
    "api": [NO_CONFIG, ("SUBSCRIBE", "sluice:other"), ("SCRIPT", "LOAD", "return 1")],
    "worker": [
        *(inside("HSET", key, "a", "b") for key in (KEYED, EARLIER_KEYED, REQUEUED, REPLICAS, REPORTS)),
        ("HSET", EARLIER_KEYED, "done", "1"), ("SET", KEYED, "x"), ("GET", KEYED), ("SUBSCRIBE", redis_users.IDLE),
    ],
    "recorder": [
        NO_CONFIG, *(inside("HSET", key, "a", "b") for key in (KEYED, EARLIER_KEYED, REPLICAS, REPORTS)),
        ("SET", KEYED, "x"), ("GET", KEYED), ("SUBSCRIBE", END), ("PUBLISH", states.CANCEL_CHANNEL, ID),
        ("SETRANGE", RECORD, 0, "C"),
    ],
    "tool": [
        NO_CONFIG, *(("HSETNX", key, "a", "b") for key in EVERY_KEY if key not in {REQUEUED, QUOTA}),
        ("HGET", EARLIER, "state"), ("GET", RECORD), ("SET", RECORD, "x"), ("DEL", RECORD), ("DEL", REQUEUED),
        ("EVAL", "return 1", 0), ("PUBLISH", END, "x"), ("SUBSCRIBE", END), ("HSET", REQUEUED, "a", "b"),
    ],
}  # fmt: skip


def redis_cases(table: dict[str, list[tuple[Any, ...]]], every: list[tuple[Any, ...]]) -> list[Any]:
    return [
        pytest.param(user, command, id=f"{user}: {' '.join(map(str, command))[:60]}")
        for user, commands in table.items()
        for command in (*commands, *(every if user != redis_users.DEFAULT else ()))
    ]


@pytest.fixture
def client_of(shared: System) -> Iterator[Callable[[str], redis.Redis]]:
    clients: list[redis.Redis] = []

    def connect(user: str) -> redis.Redis:
        url = shared.servers.redis.url(user)
        clients.append(redis.Redis.from_url(url, single_connection_client=True, protocol=2))
        return clients[-1]

    yield connect
    for client in clients:
        client.close()
    shared.redis.delete(*EVERY_KEY, FOREIGN[0])


@pytest.mark.parametrize(("user", "command"), redis_cases(REDIS_MUST, []))
def test_redis_permits_the_commands_that_a_user_needs(
    client_of: Callable[[str], redis.Redis], user: str, command: tuple[Any, ...]
) -> None:
    with suppress(NoScriptError):  # Redis looks for the script after the permission check
        client_of(user).execute_command(*command)  # type: ignore[no-untyped-call]


@pytest.mark.parametrize(("user", "command"), redis_cases(REDIS_MUST_NOT, ADMINISTRATION))
def test_redis_refuses_all_other_commands(
    client_of: Callable[[str], redis.Redis], user: str, command: tuple[Any, ...]
) -> None:
    with pytest.raises((NoPermissionError, redis.ResponseError), match=NO_PERMISSION):
        client_of(user).execute_command(*command)  # type: ignore[no-untyped-call]


def test_data_written_by_scripts_survives_a_restart(system: System) -> None:
    """Redis reads its append-only file with the rights of the default user."""
    system.recorder()
    system.worker()
    api = system.api()
    tasks = [api.accepted("sleep", key="k"), api.accepted("fail")]
    before = [api.ended(task_id) for task_id in tasks]
    key = "sluice:quota:tests"
    counts = system.redis.hgetall(key)
    system.servers.redis.stop()
    system.servers.redis.start()
    until(lambda: api.get("/healthz") == 200)
    assert [api.status(task_id) for task_id in tasks] == before
    assert counts
    assert system.redis.hgetall(key).keys() >= counts.keys()
    log = (system.servers.redis.folder / "redis.log").read_text()
    assert "AOF-loading-client" not in log


def test_redis_refuses_clients_without_a_valid_password(shared: System) -> None:
    for who in ("", "api@", "default@", ":other@", "default:other@"):
        url = f"redis://{who}127.0.0.1:{shared.servers.redis.port}/0"
        with redis.Redis.from_url(url) as client, pytest.raises(redis.RedisError, match=r"(?i)auth|pass"):
            client.ping()


def test_every_user_is_in_both_tables() -> None:
    assert AMQP_MUST.keys() == AMQP_MUST_NOT.keys() == topology.USERS.keys()
    assert REDIS_MUST.keys() == REDIS_MUST_NOT.keys() == {redis_users.DEFAULT, *redis_users.USERS}


def test_every_right_of_a_redis_user_is_needed_by_a_command() -> None:
    """A right that no command of the tables needs must be removed."""
    for user, rights in redis_users.USERS.items():
        said = " ".join(
            part.decode(errors="replace") if isinstance(part, bytes) else str(part)
            for command in REDIS_MUST[user]
            for part in command
        ).lower()
        for each in (*rights.keys, *rights.channels, *rights.commands):
            assert each.removesuffix("*").replace("|", " ") in said, f"{user}: {each}"


def test_redis_refuses_no_command_while_every_feature_is_used(system: System) -> None:
    """Post, run, cancel, fail, park and requeue tasks: the ACL log of Redis contains each refused command."""
    from tests.integration.test_dead_letters import command  # noqa: PLC0415

    system.redis.execute_command("ACL", "LOG", "RESET")  # type: ignore[no-untyped-call]
    system.define(delivery_limit=1)
    api = system.api()
    system.recorder()
    system.worker()
    assert api.ended(api.accepted("sleep", key="k"))["task_status"] == "SUCCESS"
    assert api.ended(api.accepted("fail"))["task_status"] == "FAILURE"
    task_id = api.accepted("sleep", "long", seconds=60)
    until(lambda: system.effects("long", "begun") == 1)
    api.client.delete(f"/tasks/{task_id}")
    assert api.ended(task_id)["task_status"] == "REVOKED"
    poison = api.accepted("kill_child")
    assert api.ended(poison)["task_status"] == "FAILURE"
    until(lambda: system.depth_messages(PARKED) == 1)
    assert poison in command(system, "list")
    command(system, "requeue", poison)
    refused = [
        (entry["username"], entry["reason"], entry["object"])
        for entry in system.redis.acl_log()
        if entry["object"] != "client|setinfo"
    ]
    assert refused == []


@contextmanager
def redis_server(command: list[str], folder: Path, given: dict[str, str] | None = None) -> Iterator[None]:
    """Run a Redis with this command; ended with the block."""
    child = Child("Redis", command, log=folder / "redis.log", env=dict(os.environ) | (given or {}), cwd=folder)
    child.start()
    try:
        yield
    finally:
        child.stop()


def let_in(user: str, password: str, port: int) -> bool:
    with redis.Redis(port=port, username=user, password=password) as client:
        try:
            return bool(client.ping())
        except redis.ConnectionError:
            return False


def test_chart_secret_gives_each_part_access_to_redis(tmp_path: Path) -> None:
    """The text of users.acl as the chart mounts it; the chart's probes read the default user's password from it."""
    credentials, (port,) = Credentials(), free_ports(1)
    path = tmp_path / "users.acl"
    path.write_text(contents(credentials)["data", "redis-auth"]["users.acl"])
    probe = [
        "awk",
        '$1=="user" && $2=="default" { for (i=3; i<=NF; i++) if ($i ~ /^>/) print substr($i,2) }',
        str(path),
    ]
    found = subprocess.run(probe, capture_output=True, text=True, check=True, timeout=30).stdout.strip()
    assert found == credentials.redis_password_default
    command = [str(ensure().redis_server), "--port", str(port), "--bind", "127.0.0.1", "--aclfile", str(path)]
    with redis_server(command, tmp_path):
        for user, password in credentials.redis_passwords.items():
            until(lambda user=user, password=password: let_in(user, password, port))  # type: ignore[misc]
            assert not let_in(user, f"{password}x", port)


def test_compose_file_gives_redis_its_users(tmp_path: Path) -> None:
    """Runs the command of compose.yaml on a free port."""
    credentials, (port,) = Credentials(), free_ports(1)
    given = {"REDIS_USERS": "\n".join(redis_users.acl(credentials.redis_passwords))}
    shell, option, script = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]["redis"]["command"]
    script = script.replace("$$", "$").replace("dir /data", f'dir "{tmp_path}"\nbind 127.0.0.1\nport {port}')
    with redis_server([shell, option, script], tmp_path, given):
        for user, password in credentials.redis_passwords.items():
            until(lambda user=user, password=password: let_in(user, password, port))  # type: ignore[misc]
