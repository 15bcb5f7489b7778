"""Unreadable messages are parked unchanged, and do not block other messages."""

import base64
import gzip
import json
import struct
import zlib
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kombu import Connection

from apps.amqp import properties
from apps.contract.ids import TaskIds
from apps.contract.message import RAW_HEADER, RAW_SIZE_HEADER
from tests.harness import raw_messages
from tests.harness.raw_messages import TASK, headers, text
from tests.harness.records import Records
from tests.harness.servers import Servers
from tests.harness.simple_tasks import WORK_QUEUE
from tests.harness.system import Api, System, until
from tests.harness.thorough import POOL_PARAMETERS
from tests.integration.test_dead_letters import command

QUEUES = (WORK_QUEUE, "celery", "dead", "dead.parked")
TYPED = b"\xa0\x00\x10application/json"  # flags: content type and headers
BODY = b'[["{}"], {}, {}]'
HUNDRED_MIB = 100 * 1024 * 1024


@pytest.fixture(scope="module")
def system(servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    with System(servers, tmp_path_factory.mktemp("malformed")) as system:
        yield system


@pytest.fixture(scope="module", params=POOL_PARAMETERS)
def api(system: System, request: pytest.FixtureRequest) -> Iterator[Api]:
    earlier = connections(system)
    worker, recorder = system.worker(WORKER_POOL=request.param), system.recorder()
    api = system.api()
    until(lambda: connections(system) == earlier + 2)  # logged after the processes are ready
    yield api
    for child in (worker, recorder):
        child.kill()


def publish(system: System, messages: list[tuple[str, bytes, bytes]]) -> int:
    """Publish messages; returns how many the broker accepted."""
    return sum(raw_messages.publish(system.servers.rabbitmq.url(vhost=system.vhost), messages))


def listed(system: System) -> list[dict[str, Any]]:
    return [json.loads(line) for line in command(system, "list").splitlines()]


def parked_now(system: System) -> int:
    """Return the exact number of parked messages; the management API lags by a second."""
    with Connection(system.servers.rabbitmq.url(vhost=system.vhost)) as connection:
        return int(connection.default_channel.queue_declare("dead.parked", passive=True).message_count)


def settled(system: System) -> bool:
    return all(system.depth_messages(queue) == 0 for queue in QUEUES[:3])


def connections(system: System) -> int:
    """Return how often any process began to consume or lost its connection."""
    messages = [line.get("message") for line in system.log_lines()]
    return sum(messages.count(message) for message in ("consuming", "broker away", "dead letter not recorded"))


def assert_parked(system: System, api: Api, messages: list[tuple[str, bytes, bytes]]) -> None:
    """Assert that all messages are parked, that no process reconnects, and that another task runs meanwhile."""
    until(lambda: settled(system))
    before, connected = parked_now(system), connections(system)
    taken = publish(system, messages)
    assert taken
    assert api.ended(api.accepted("second"))["task_status"] == "SUCCESS"
    until(lambda: parked_now(system) >= before + taken and settled(system))
    assert connections(system) == connected


def test_messages_with_invalid_properties_are_parked_and_close_no_connection(system: System, api: Api) -> None:
    known = len(listed(system))
    assert_parked(system, api, [(queue, one, b"{") for one in raw_messages.PROPERTIES.values() for queue in QUEUES])
    found = listed(system)[known:]
    assert {line["reason"] for line in found} == {"malformed"}
    assert all(line["requeue"].startswith("not possible") for line in found)


BODIES = {
    "empty": b"",
    "zeros": b"\0" * 1000,
    "not-utf-8": b"\xff\xfe",
    "deep": b"[" * 100_000,
    "digits": b"[[" + b"9" * 100_000 + b"], {}, {}]",
    "number": b"7",
    "text": b'["a", {}, {}]',
    "two-inputs": b'[["{}", "{}"], {}, {}]',
    "odd-input": b"[[7], {}, {}]",
    "callbacks": b'[["{}"], {}, {"callbacks": [{"task": "a"}]}]',
    "large": b"x" * 4_000_000,
}


def test_messages_with_unreadable_bodies_are_parked(system: System, api: Api) -> None:
    known = len(listed(system))
    utf8 = b"\xe0\x00\x10application/json\x05utf-8" + headers(TASK)[2:]
    assert_parked(system, api, [(queue, utf8, body) for body in BODIES.values() for queue in QUEUES])
    assert {line["reason"] for line in listed(system)[known:]} == {"malformed"}


@pytest.mark.parametrize(
    ("properties", "body"),
    [
        (headers(TASK | {b"compression": text(b"application/x-gzip")}), gzip.compress(bytes(HUNDRED_MIB))),
        (b"\xe0\x00\x10application/text\x04zlib" + headers(TASK)[2:], zlib.compress(bytes(HUNDRED_MIB))),
        (b"\xe0\x00\x10application/json\x04zlib" + headers(TASK)[2:], b"garbage"),
        (b"\xe0\x00\x1eapplication/x-python-serialize\x06binary" + headers(TASK)[2:], b"\x80\x04N."),
    ],
)
def test_compressed_or_pickled_body_is_parked_unchanged(
    system: System, api: Api, properties: bytes, body: bytes
) -> None:
    assert_parked(system, api, [(WORK_QUEUE, properties, body)])


VALUES = st.recursive(
    st.one_of(
        st.just(b"V"),
        st.binary(max_size=20).map(text),
        st.binary(max_size=20).map(lambda data: b"x" + raw_messages.sized(data)),
        st.integers(0, 2**64 - 1).map(lambda number: b"T" + struct.pack(">Q", number)),
        st.integers(-(2**63), 2**63 - 1).map(lambda number: b"l" + struct.pack(">q", number)),
        st.binary(min_size=5, max_size=5).map(lambda data: b"D" + data),
        st.binary(min_size=1, max_size=1).map(lambda data: b"t" + data),
    ),
    lambda values: st.one_of(
        st.lists(values, max_size=3).map(lambda found: raw_messages.array(*found)),
        st.dictionaries(st.binary(max_size=10), values, max_size=3).map(raw_messages.table),
    ),
    max_leaves=8,
)
NAMES = st.sampled_from([*TASK, b"x-death", b"form", b"first_return_s", b"returns", b"eta", b"failure", b"stamps"])
TABLES = st.dictionaries(st.one_of(NAMES, st.binary(max_size=20)), VALUES, max_size=6)


@pytest.mark.usefixtures("api")
@settings(max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(tables=st.lists(TABLES, min_size=5, max_size=20), body=st.binary(max_size=100))
def test_no_random_message_stays_in_a_queue_or_closes_a_connection(
    system: System, tables: list[dict[bytes, bytes]], body: bytes
) -> None:
    until(lambda: settled(system))
    connected = connections(system)
    # Excludes CC: the broker routes by this header.
    messages = [(queue, headers(TASK | one), body) for one in tables for queue in QUEUES[:3]]
    publish(system, [one for one in messages if b"CC" not in one[1]])
    until(lambda: settled(system))
    assert connections(system) == connected


@pytest.mark.parametrize("kind", ["x-death-of-texts", "huge", "eta-of-time-after-9999"])
@pytest.mark.parametrize("queue", [WORK_QUEUE, "dead"])
def test_parked_message_contains_the_original_headers_and_body(system: System, api: Api, kind: str, queue: str) -> None:
    system.servers.rabbitmq.management(f"/api/queues/{system.vhost}/dead.parked/contents", "DELETE")
    sent = raw_messages.PROPERTIES[kind]
    body = f"{kind} in {queue}".encode()
    assert_parked(system, api, [(queue, sent, body)])
    kept, found = _last_parked(system, body)
    assert found == body
    assert properties.decode(sent)["headers"].items() <= properties.decode(kept)["headers"].items()


def _last_parked(system: System, body: bytes) -> tuple[bytes, bytes]:
    """Return the original properties and body of the parked message with this body."""
    with Connection(system.servers.rabbitmq.url(vhost=system.vhost)) as connection:
        channel = connection.default_channel
        while (message := channel.basic_get("dead.parked")) is not None:
            table = message.properties.get("application_headers", {})
            size = table.get(RAW_SIZE_HEADER, 0)
            found = message.body if isinstance(message.body, bytes) else message.body.encode()
            if found[size:] == body:
                return found[:size] or base64.b64decode(table[RAW_HEADER]), found[size:]
    raise AssertionError("no parked message has this body")


def test_dead_letter_among_unreadable_messages_is_a_failure(system: System, api: Api) -> None:
    """More unreadable messages than the recorder's prefetch count must not keep it from reading the valid one."""
    connected = connections(system)
    publish(system, [("dead", raw_messages.PROPERTIES["x-death-of-text"], BODY)] * 16)
    task_id = api.accepted("validated")  # becomes a dead letter, as the worker rejects its input
    assert api.ended(task_id)["task_result"]["type"] == "NotUnderstood"
    assert connections(system) == connected


@pytest.mark.usefixtures("api")
def test_malformed_message_with_a_readable_id_is_a_failure(system: System) -> None:
    unused = TaskIds(system.task_id_key.encode()).new("tests")
    publish(system, [(WORK_QUEUE, headers(TASK | {b"id": text(unused.encode()), b"retries": b"V"}), BODY)])
    until(lambda: Records(system.redis).read(unused).state == "FAILURE")
    assert '"malformed"' in Records(system.redis).read(unused).meta


def test_unreadable_message_can_be_discarded_but_not_requeued(system: System, api: Api) -> None:
    assert_parked(system, api, [("dead", b"\0\0", b"to be discarded"), ("dead", b"\0\0", b"another")])
    one, other = listed(system)[-2:]
    assert "cannot be sent again" in command(system, "requeue", one["id"], status=1)
    assert json.loads(command(system, "discard", one["id"]))["id"] == one["id"]
    left = [line["id"] for line in listed(system)]
    assert one["id"] not in left
    assert other["id"] in left
    assert "has the id" in command(system, "discard", one["id"], status=1)
