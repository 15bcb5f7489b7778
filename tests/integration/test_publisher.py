"""The publisher with a real RabbitMQ: its answers match the state of the queue."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import kombu
import pytest
from celery import Celery

from apps.api.publisher import CONFIRMED, Outcome, Publisher
from apps.contract import topology
from apps.contract.message import TaskMessage, task_message
from tests.harness.fake_broker import eventually, running, until
from tests.harness.simple_tasks import TASKS, WORK_QUEUE
from tests.harness.system import System
from tests.harness.tls import self_signed, tls_in_front_of

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, bool]]:
    """Only uvloop, as in production; tests with the scripted peer, which are faster, also run on asyncio's loop."""
    return "asyncio", {"use_uvloop": True}


def message(name: str = "abc", task_id: str = "an-id") -> TaskMessage:
    text = json.dumps({"task": "first", "name": name})
    return task_message(TASKS["first"], text, task_id=task_id, owner="o", request_id="r")


def url(system: System, **parts: str) -> str:
    wanted = {"user": "api", "password": system.passwords["api"], "vhost": system.vhost} | parts
    return system.servers.rabbitmq.url(**wanted)


def refusals(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.fields["error"] for record in caplog.records if record.message == "broker away"]  # type: ignore[attr-defined]


async def publish(publisher: Publisher, count: int = 1) -> list[str]:
    found: list[Outcome] = await asyncio.gather(*(publisher.publish(message()) for _ in range(count)))
    return [f"{outcome.kind} {outcome.reason}".strip() for outcome in found]


async def confirmed(publisher: Publisher) -> None:
    """Wait until a publish is confirmed."""
    await eventually(partial(publish, publisher), ["confirmed"])


@asynccontextmanager
async def connected(system: System, **options: Any) -> AsyncIterator[Publisher]:
    async with running(url(system), **{"deadline_s": 60} | options) as publisher:
        await eventually(publisher.ping, wanted=True)
        yield publisher


def depth(system: System) -> int:
    """Return the number of ready messages; the management API lags behind."""
    with kombu.Connection(url(system, user="admin", password=system.servers.rabbitmq.password)) as connection:
        declared = connection.default_channel.queue_declare(WORK_QUEUE, passive=True)
    return int(declared.message_count)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [({"password": "not-it"}, "403 ACCESS_REFUSED"), ({"vhost": "none"}, "530 NOT_ALLOWED")],
    ids=["password", "vhost"],
)
async def test_refused_handshake_is_logged_and_publishes_are_refused(
    shared: System, wrong: dict[str, str], said: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(url(shared, **wrong)) as publisher:
        await until(lambda: bool(refusals(caplog)), 30)
        assert await publish(publisher) == ["refused broker-away"]
    assert said in refusals(caplog)[0]


async def test_every_confirmed_message_is_in_the_queue(system: System) -> None:
    async with connected(system) as publisher:
        assert await publish(publisher, 1000) == ["confirmed"] * 1000
        assert depth(system) == 1000


async def test_message_equals_the_message_of_celerys_own_client(system: System) -> None:
    """Both messages travel through the broker, and are read as a worker reads them."""
    ours = message("Łódź")
    with Celery(broker=url(system, user="worker", password=system.passwords["worker"]), set_as_current=False) as celery:
        theirs = celery.amqp.as_task_v2(
            "an-id", ours.task, [json.dumps({"task": "first", "name": "Łódź"})], {}, origin="sluice-api",
            argsrepr="(...)", kwargsrepr="{}",
        )  # fmt: skip
        exchange = kombu.Exchange(topology.EXCHANGE, type="topic", no_declare=True)
        with celery.connection_for_write() as connection:
            producer = celery.amqp.Producer(connection, auto_declare=False)
            celery.amqp.send_task_message(producer, ours.task, theirs, exchange=exchange, routing_key=WORK_QUEUE)
            async with connected(system) as publisher:
                assert await publisher.publish(ours) is CONFIRMED
            celerys, own = (connection.default_channel.basic_get(WORK_QUEUE) for _ in range(2))
    added = {name: own.headers.pop(name) for name in ("publish_id", "owner", "request_id")}
    assert (added["owner"], added["request_id"]) == ("o", "r")
    assert own.properties.pop("message_id") == added["publish_id"]
    assert own.properties == celerys.properties  # includes the headers
    assert own.headers == celerys.headers
    assert json.loads(own.body) == json.loads(celerys.body)


async def test_only_unroutable_messages_are_refused(system: System) -> None:
    async with connected(system) as publisher:
        nowhere = message()._replace(routing_key="nowhere")
        mixed = [message(), nowhere, message(), nowhere]
        found = await asyncio.gather(*(publisher.publish(one) for one in mixed))
    assert [outcome.reason for outcome in found] == ["", "unroutable", "", "unroutable"]


async def test_full_queue_refuses_exactly_the_messages_that_it_does_not_keep(system: System) -> None:
    system.define(max_length_messages=20)
    async with connected(system) as publisher:
        found = await publish(publisher, 500)
        assert set(found) == {"confirmed", "refused queue-full"}
        await until(lambda: depth(system) == found.count("confirmed"), 30)


async def test_publishes_are_refused_while_the_exchange_is_missing(
    system: System, caplog: pytest.LogCaptureFixture
) -> None:
    async with connected(system) as publisher:
        system.servers.rabbitmq.management(f"/api/exchanges/{system.vhost}/{topology.EXCHANGE}", "DELETE")
        assert await publish(publisher) == ["unknown connection-lost"]  # the broker closes the channel
        await until(lambda: len(refusals(caplog)) > 1, 30)
        assert await publish(publisher) == ["refused broker-away"]
        assert all("404 NOT_FOUND" in error for error in refusals(caplog))
        system.define()
        await confirmed(publisher)


async def test_connection_closed_by_the_broker_is_reopened(system: System, caplog: pytest.LogCaptureFixture) -> None:
    async with connected(system) as publisher:
        await until(lambda: bool(system.broker_connections("api")), 30)
        system.close_broker_connections("api")
        await until(lambda: bool(refusals(caplog)), 30)
        assert "320 CONNECTION_FORCED" in refusals(caplog)[0]
        await confirmed(publisher)


async def test_killed_broker_leaves_open_publishes_unknown_and_refuses_later_ones(system: System) -> None:
    async with connected(system) as publisher:
        system.servers.rabbitmq.suspend()
        under_way = asyncio.create_task(publish(publisher, 10))
        await until(lambda: publisher.in_flight == 10)
        system.servers.rabbitmq.kill()
        assert await under_way == ["unknown connection-lost"] * 10
        assert await publish(publisher) == ["refused broker-away"]
        system.servers.rabbitmq.start()  # not in a thread: the node dies with the thread that starts it
        await confirmed(publisher)


async def test_suspended_broker_is_disconnected_after_missed_heartbeats(
    system: System, caplog: pytest.LogCaptureFixture
) -> None:
    async with connected(system, heartbeat_s=1, deadline_s=0.5) as publisher:
        system.servers.rabbitmq.suspend()
        assert await publish(publisher) == ["unknown deadline"]
        await until(lambda: "silent" in "".join(refusals(caplog)), 30)
        system.servers.rabbitmq.resume()
        await confirmed(publisher)


async def test_slow_broker_delays_large_messages_and_loses_none(system: System) -> None:
    async with connected(system, deadline_s=60, heartbeat_s=60) as publisher:
        system.servers.rabbitmq.suspend()  # the broker stops reading
        large = message()._replace(body=b'[[{"task":"first","name":"' + b"a" * 1024 * 1024 + b'"}],{},{}]')
        publishes = [asyncio.create_task(publisher.publish(large)) for _ in range(15)]
        await until(lambda: publisher._waiting_bytes > 0)  # noqa: SLF001 - the publisher's only sign of waiting
        system.servers.rabbitmq.resume()
        assert {outcome.kind for outcome in await asyncio.gather(*publishes)} == {"confirmed"}
        assert depth(system) == 15


async def test_publishes_are_refused_while_the_broker_is_blocked(system: System, alarm: Callable[[str], None]) -> None:
    # The broker announces that it is blocked only when a message arrives, and leaves that message unanswered.
    async with connected(system, deadline_s=5) as publisher:
        await asyncio.to_thread(alarm, "0.00001")
        await eventually(partial(publish, publisher), ["refused broker-blocked"])
        assert not await publisher.ping()
        await asyncio.to_thread(alarm, "0.4")
        await confirmed(publisher)


async def test_open_publishes_are_answered_before_the_publisher_ends(system: System) -> None:
    async with connected(system) as publisher:
        under_way = asyncio.create_task(publish(publisher, 500))
        await until(lambda: publisher.in_flight > 0)
    assert set(await under_way) == {"confirmed"}


async def test_unreachable_first_host_is_skipped(system: System) -> None:
    nobody = "amqp://api:x@127.0.0.1:1/"
    async with running(f"{nobody};{url(system)}") as publisher:
        await confirmed(publisher)


async def test_publisher_connects_over_amqps(system: System, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy in front of the broker terminates TLS, as a load balancer does."""
    certificate = self_signed(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    async with tls_in_front_of(system.servers.rabbitmq.port, certificate) as port:
        plain = url(system)
        secure = plain.replace("amqp://", "amqps://").replace(f":{system.servers.rabbitmq.port}/", f":{port}/")
        async with running(secure, deadline_s=60) as publisher:
            await confirmed(publisher)
            assert await publish(publisher, 300) == ["confirmed"] * 300
