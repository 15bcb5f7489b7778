"""The publisher against a scripted broker: every state of the connection, and only correct outcomes."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from pamqp.body import ContentBody
from pamqp.commands import Basic, Channel, Connection, Exchange

from apps.amqp.connection import Connection as Connected
from apps.amqp.connection import Ended
from apps.api import publisher as module
from apps.api.publisher import CONFIRMED, Outcome, Publisher
from apps.contract.message import TaskMessage
from apps.startup import Refused
from ops.servers.ports import free_ports
from tests.harness.fake_broker import Published, Session, listening, running, until
from tests.harness.simple_tasks import WORK_QUEUE
from tests.harness.tls import self_signed, server_context

pytestmark = pytest.mark.anyio

DEADLINE_S = 15.0


def message(number: int = 0, body: bytes = b"[]") -> TaskMessage:
    return TaskMessage(f"{WORK_QUEUE}:first", WORK_QUEUE, f"id-{number}", f"publish-{number}", "o", "r", None, body)


def publishing(publisher: Publisher, count: int, first: int = 0) -> list[asyncio.Task[Outcome]]:
    return [asyncio.create_task(publisher.publish(message(first + number))) for number in range(count)]


async def outcomes(publishes: list[asyncio.Task[Outcome]]) -> list[str]:
    return [f"{outcome.kind} {outcome.reason}".strip() for outcome in await asyncio.gather(*publishes)]


async def ready(publisher: Publisher) -> None:
    await until(lambda: publisher._connection is not None and not publisher._connection.ended.done())  # noqa: SLF001


def patient(publisher: Publisher) -> None:
    """Raise the deadline of later publishes, which may take longer than the test's deadline on a busy machine."""
    publisher._deadline_s = 30  # noqa: SLF001


@asynccontextmanager
async def connected(**options: float) -> AsyncIterator[tuple[Publisher, Session]]:
    """A publisher, and the broker's side of its connection."""
    async with listening() as peer, running(peer.url(), **options) as publisher:  # type: ignore[arg-type]
        session = await peer.opened()
        await ready(publisher)
        yield publisher, session
        session.reset()


async def test_handshake_sends_the_virtual_host_and_the_negotiated_limits() -> None:
    async with listening() as peer, running(peer.url(), heartbeat_s=7):
        session = await peer.session()
        opened = await session.tune(frame_max=8192, heartbeat=60)
    assert opened.virtual_host == "a/vhost"
    assert (session.tuned.frame_max, session.tuned.heartbeat) == (8192, 7)


async def test_login_sends_the_password_and_the_capabilities() -> None:
    async with listening() as peer, running(peer.url()):
        start = await (await peer.session()).start()
    assert (start.mechanism, start.response) == ("PLAIN", "\0user\0secret/")
    assert start.client_properties["capabilities"] == {
        "authentication_failure_close": True,
        "basic.nack": True,
        "connection.blocked": True,
        "publisher_confirms": True,
    }


def refuse_login(session: Session) -> Awaitable[object]:
    session.send(Connection.Close(403, "ACCESS_REFUSED - Login was refused", 0, 0), 0)
    return session.expect(Connection.CloseOk)


@pytest.mark.parametrize(
    "how", ["frames", "password", "mechanism", "vhost", "exchange", "hang up", "gibberish", "other protocol"]
)
async def test_refused_handshake_refuses_publishes_and_is_repeated(how: str, caplog: pytest.LogCaptureFixture) -> None:
    said = await refused_handshake(how)
    (first, *_) = [record for record in caplog.records if record.message == "broker away"]
    assert said in first.fields["error"]  # type: ignore[attr-defined]
    assert "secret" not in str(first.__dict__)


async def test_refusal_by_the_second_host_ends_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first host does not answer for as long as one attempt may take."""
    monkeypatch.setattr(module, "CONNECT_DEADLINE_S", 2.0)
    async with listening() as silent, listening() as peer, running(f"{silent.url()};{peer.url()}") as publisher:
        start = asyncio.create_task(publisher.wait_started(2.0))
        session = await peer.session()
        await session.start()
        await refuse_login(session)
        with pytest.raises(Refused, match="ACCESS_REFUSED"):
            await start


async def refused_handshake(how: str) -> str:
    async with listening() as peer, running(peer.url()) as publisher:
        session = await peer.session()
        match how:
            case "password":
                await session.start()
                await refuse_login(session)
            case "mechanism":
                session.send(Connection.Start(0, 9, {}, "EXTERNAL", "en_US"), 0)
            case "frames":
                await session.start()
                session.send(Connection.Tune(2047, 1024, 60), 0)
            case "vhost":
                await session.tune()
                session.send(Connection.Close(530, "NOT_ALLOWED - vhost not found", 10, 40), 0)
            case "exchange":
                await session.tune()
                session.send(Connection.OpenOk(), 0)
                await session.expect(Channel.Open)
                session.send(Channel.OpenOk())
                await session.expect(Exchange.Declare)
                session.send(Channel.Close(404, "NOT_FOUND - no exchange 'sluice'", 40, 10))
            case "hang up":
                session.reset()
            case "gibberish":
                session.writer.write(bytes(range(256)))
            case "other protocol":
                session.writer.write(b"AMQP\x00\x01\x00\x00")
        assert await outcomes(publishing(publisher, 1)) == ["refused broker-away"]
        assert not await publisher.ping()
        await peer.opened()
        await ready(publisher)
    return {
        "password": "403 ACCESS_REFUSED",
        "mechanism": "PLAIN",
        "vhost": "530 NOT_ALLOWED",
        "exchange": "404 NOT_FOUND",
        "hang up": "",
        "frames": "1024 bytes only",
    }.get(how, "protocol error")


async def test_ack_confirms_the_publishes_it_names() -> None:
    async with connected() as (publisher, session):
        publishes = publishing(publisher, 3)
        await session.messages(3)
        session.send(Basic.Ack(2))
        assert await publishes[1] is CONFIRMED
        assert not publishes[0].done()
        assert not publishes[2].done()
        session.send(Basic.Ack(3, multiple=True))
        assert await outcomes(publishes) == ["confirmed"] * 3
        assert publisher.in_flight == 0


async def test_nack_refuses_the_publishes_it_names() -> None:
    async with connected() as (publisher, session):
        publishes = publishing(publisher, 4)
        await session.messages(4)
        session.send(Basic.Nack(1))
        session.send(Basic.Ack(2))
        session.send(Basic.Nack(4, multiple=True))
        assert await outcomes(publishes) == ["refused queue-full", "confirmed", *["refused queue-full"] * 2]


def send_back(session: Session, published: Published) -> None:
    session.send(Basic.Return(312, "NO_ROUTE", "sluice", WORK_QUEUE))
    session.send(published.header)
    for start in range(0, len(published.body), 1000):
        session.send(ContentBody(published.body[start : start + 1000]))


@pytest.mark.parametrize("body", [b"x", b"x" * 5000])
async def test_publish_returned_before_its_ack_is_refused(body: bytes) -> None:
    async with connected() as (publisher, session):
        publishes = [asyncio.create_task(publisher.publish(message(number, body))) for number in range(3)]
        _, second, _ = await session.messages(3)
        send_back(session, second)
        session.send(Basic.Ack(3, multiple=True))
        assert await outcomes(publishes) == ["confirmed", "refused unroutable", "confirmed"]


async def test_only_the_returned_of_two_publishes_of_a_task_is_refused() -> None:
    async with connected() as (publisher, session):
        one, two = (message(0)._replace(publish_id=name) for name in ("one", "two"))
        publishes = [asyncio.create_task(publisher.publish(each)) for each in (one, two)]
        _, second = await session.messages(2)
        send_back(session, second)
        session.send(Basic.Ack(2, multiple=True))
        assert await outcomes(publishes) == ["confirmed", "refused unroutable"]


@pytest.mark.parametrize(
    "ending",
    [
        lambda session: session.send(Channel.Close(404, "NOT_FOUND - no exchange", 60, 40)),
        lambda session: session.send(Connection.Close(320, "CONNECTION_FORCED", 0, 0), 0),
        lambda session: session.reset(),
        lambda session: session.writer.close(),
        lambda session: session.writer.write(b"\x01\x00\x01\x00\x00\x00\x04\x00\x00\x00\x00\xce"),
        lambda session: session.send(Basic.Ack(5)),
        lambda session: session.send(Basic.Ack(9, multiple=True)),
        lambda session: session.send(Basic.Return(312, "", "", "")) or session.send(Basic.Ack(2)),
        lambda session: session.send(Basic.CancelOk("c")),
        lambda session: session.send(Basic.Ack(2), 7),
        lambda session: session.send(ContentBody(b"x")),
    ],
    ids=[
        "channel closed", "connection closed", "reset", "end of file", "unknown method", "ack of nothing",
        "ack of more", "ack inside a return", "an answer to nothing", "another channel", "a body of nothing",
    ],
)  # fmt: skip
async def test_lost_connection_leaves_open_publishes_unknown(ending: Callable[[Session], object]) -> None:
    async with listening() as peer, running(peer.url()) as publisher:
        session = await peer.opened()
        await ready(publisher)
        publishes = publishing(publisher, 3)
        await session.messages(3)
        session.send(Basic.Ack(1))
        await publishes[0]
        ending(session)
        assert await outcomes(publishes) == ["confirmed", *["unknown connection-lost"] * 2]
        assert await outcomes(publishing(publisher, 1)) == ["refused broker-away"]
        again = await peer.opened()
        await ready(publisher)
        publishes = publishing(publisher, 1)  # delivery tags restart at 1
        await again.message()
        again.send(Basic.Ack(1))
        assert await outcomes(publishes) == ["confirmed"]


async def test_close_of_the_broker_is_answered() -> None:
    async with listening() as peer, running(peer.url()):
        session = await peer.opened()
        session.send(Connection.Close(320, "CONNECTION_FORCED", 0, 0), 0)
        await session.expect(Connection.CloseOk)
        with pytest.raises(asyncio.IncompleteReadError):
            await session.frame()


async def test_silent_broker_is_disconnected_after_two_heartbeats() -> None:
    async with listening() as peer, running(peer.url(), heartbeat_s=1, deadline_s=30) as publisher:
        session = await peer.opened()
        await ready(publisher)
        started_s = time.monotonic()
        publishes = publishing(publisher, 1)
        assert await outcomes(publishes) == ["unknown connection-lost"]
        assert 1.5 < time.monotonic() - started_s < 25  # before the deadline of the publish
        data = await session.reader.read()
        assert data.count(b"\x08\x00\x00\x00\x00\x00\x00\xce") >= 2  # our heartbeats continued


async def test_heartbeats_keep_the_connection_open() -> None:
    async with connected(heartbeat_s=1) as (publisher, session):
        for _ in range(15):
            session.writer.write(b"\x08\x00\x00\x00\x00\x00\x00\xce")
            await asyncio.sleep(0.2)
        assert publisher._connection is not None  # noqa: SLF001
        assert not publisher._connection.ended.done()  # noqa: SLF001


async def test_publishes_are_refused_while_the_broker_is_blocked() -> None:
    async with connected() as (publisher, session):
        session.send(Connection.Blocked("low on memory"), 0)
        assert publisher._connection is not None  # noqa: SLF001
        await until(lambda: publisher._connection.blocked)  # type: ignore[union-attr]  # noqa: SLF001
        assert await outcomes(publishing(publisher, 1)) == ["refused broker-blocked"]
        assert not await publisher.ping()
        session.send(Connection.Unblocked(), 0)
        await until(lambda: not publisher._connection.blocked)  # type: ignore[union-attr]  # noqa: SLF001
        publishes = publishing(publisher, 1)
        await session.message()
        session.send(Basic.Ack(1))
        assert await outcomes(publishes) == ["confirmed"]


async def test_memory_is_bounded_while_the_broker_reads_nothing() -> None:
    """First the socket buffer fills, then the transport's buffer, then the list of waiting publishes."""
    body = b"x" * 1024 * 1024
    async with connected(deadline_s=1) as (publisher, _):
        publishes = [asyncio.create_task(publisher.publish(message(number, body))) for number in range(100)]
        found = await outcomes(publishes)
        counts = {each: found.count(each) for each in set(found)}
    assert counts["unknown deadline"] < 20  # sent before the buffer was full
    assert 16 <= counts["refused broker-slow"] <= 17  # the bound of the waiting list; never sent
    assert counts["refused too-many-in-flight"] > 60


async def test_slow_reader_receives_all_messages_in_order() -> None:
    body = b"x" * 1024 * 1024
    async with connected(deadline_s=20) as (publisher, session):
        publishes = [asyncio.create_task(publisher.publish(message(number, body))) for number in range(12)]
        await until(lambda: publisher._waiting_bytes > 0)  # noqa: SLF001
        got = await session.messages(12)
        session.send(Basic.Ack(12, multiple=True))
        assert await outcomes(publishes) == ["confirmed"] * 12
        assert [one.publish_id for one in got] == [f"publish-{number}" for number in range(12)]
        assert all(one.body == body for one in got)


async def test_publish_is_unknown_at_its_deadline_and_a_late_ack_is_accepted() -> None:
    async with connected(deadline_s=0.3) as (publisher, session):
        started_s = time.monotonic()
        publishes = publishing(publisher, 1)
        assert await outcomes(publishes) == ["unknown deadline"]
        assert time.monotonic() - started_s > 0.25
        assert publisher.in_flight == 1  # the broker may still confirm it
        patient(publisher)
        session.send(Basic.Ack(1))
        await until(lambda: publisher.in_flight == 0)
        publishes = publishing(publisher, 1)
        await session.messages(2)
        session.send(Basic.Ack(2))
        assert await outcomes(publishes) == ["confirmed"]


async def test_publishes_are_refused_while_the_broker_answers_nothing_past_a_deadline() -> None:
    async with connected(deadline_s=0.3) as (publisher, session):
        assert await outcomes(publishing(publisher, 1)) == ["unknown deadline"]
        await until(lambda: publisher._silent)  # noqa: SLF001
        assert await outcomes(publishing(publisher, 1)) == ["refused broker-silent"]
        session.send(Basic.Ack(1))
        await until(lambda: not publisher._silent)  # noqa: SLF001
        patient(publisher)
        publishes = publishing(publisher, 1)
        await session.messages(2)
        session.send(Basic.Ack(2))
        assert await outcomes(publishes) == ["confirmed"]


async def test_number_of_publishes_in_flight_is_bounded() -> None:
    async with connected(in_flight_max=300) as (publisher, session):
        publishes = publishing(publisher, 310)
        await session.messages(module.WINDOW)
        assert publisher.in_flight == 300
        refused = [publish for publish in publishes if publish.done()]
        assert await outcomes(refused) == ["refused too-many-in-flight"] * 10
        session.send(Basic.Ack(module.WINDOW, multiple=True))  # acks the window; the waiting ones follow
        await session.messages(300 - module.WINDOW)
        session.send(Basic.Ack(300, multiple=True))
        assert (await outcomes(publishes)).count("confirmed") == 300


async def test_waiting_publishes_are_refused_when_the_connection_is_lost() -> None:
    async with connected() as (publisher, session):
        publishes = publishing(publisher, module.WINDOW + 10)
        await session.messages(module.WINDOW)
        session.reset()
        found = await outcomes(publishes)
    assert found.count("unknown connection-lost") == module.WINDOW
    assert found.count("refused broker-away") == 10  # they were never sent


async def test_cancelled_waiting_publish_is_not_sent() -> None:
    async with connected() as (publisher, session):
        publishes = publishing(publisher, module.WINDOW + 2)
        await session.messages(module.WINDOW)
        publishes[module.WINDOW].cancel()
        session.send(Basic.Ack(module.WINDOW, multiple=True))
        assert (await session.message()).publish_id == f"publish-{module.WINDOW + 1}"
        session.send(Basic.Ack(module.WINDOW + 1))
        assert await publishes[-1] is CONFIRMED


async def test_cancelled_sent_publish_keeps_its_tag() -> None:
    async with connected() as (publisher, session):
        publishes = publishing(publisher, 3)
        await session.messages(3)
        publishes[1].cancel()
        session.send(Basic.Ack(2, multiple=True))
        session.send(Basic.Ack(3))
        found = await asyncio.gather(*publishes, return_exceptions=True)
    assert [found[0], found[2]] == [CONFIRMED] * 2
    assert isinstance(found[1], asyncio.CancelledError)


async def test_reconnect_has_backoff_and_jitter(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    pause = asyncio.sleep

    async def sleep(delay_s: float) -> None:
        pauses.append(delay_s)
        await pause(0)

    monkeypatch.setattr("apps.api.publisher.asyncio.sleep", sleep)
    (port,) = free_ports(1)
    async with running(f"amqp://u:p@127.0.0.1:{port}/"):
        while len(pauses) < 12:
            await pause(0.01)
    most = [min(0.1 * 2**number, 2.0) for number in range(12)]
    assert all(limit / 2 <= pause_s <= limit for pause_s, limit in zip(pauses, most, strict=False))
    assert len({round(pause_s, 4) for pause_s in pauses[6:]}) > 1  # jitter


async def test_next_host_is_used_after_a_lost_connection() -> None:
    (nobody,) = free_ports(1)
    async with listening() as one, listening() as two:
        urls = ";".join([f"amqp://u:p@127.0.0.1:{nobody}/", one.url(), two.url()])
        async with running(urls) as publisher:
            session = await one.opened()
            await ready(publisher)
            publishes = publishing(publisher, 1)
            await session.message()
            session.reset()
            assert await outcomes(publishes) == ["unknown connection-lost"]
            session = await two.opened()
            await ready(publisher)
            publishes = publishing(publisher, 1)
            await session.message()
            session.send(Basic.Ack(1))
            assert await outcomes(publishes) == ["confirmed"]


async def test_end_waits_for_open_publishes_and_closes_the_connection() -> None:
    async with listening() as peer:
        publisher = Publisher(peer.url(), deadline_s=5, in_flight_max=1000, heartbeat_s=10)
        run = asyncio.create_task(publisher.run())
        session = await peer.opened()
        await ready(publisher)
        publishes = publishing(publisher, module.WINDOW + 1)
        await session.messages(module.WINDOW)
        run.cancel()
        await asyncio.sleep(0)
        assert await outcomes(publishing(publisher, 1)) == ["refused shutting-down"]
        assert not await publisher.ping()
        session.send(Basic.Ack(module.WINDOW, multiple=True))
        await session.message()
        session.send(Basic.Ack(module.WINDOW + 1))
        await session.goodbye()
        await asyncio.wait([run])
        assert await outcomes(publishes) == ["confirmed"] * (module.WINDOW + 1)
        assert await outcomes(publishing(publisher, 1)) == ["refused broker-away"]


async def test_end_with_a_hanging_broker_takes_at_most_the_deadline() -> None:
    async with listening() as peer:
        async with running(peer.url(), deadline_s=0.3) as publisher:
            session = await peer.opened()
            await ready(publisher)
            publishes = publishing(publisher, 1)
            await session.message()
            started_s = time.monotonic()
        assert time.monotonic() - started_s < 15  # missed heartbeats would end it after 20 s
        assert await outcomes(publishes) == ["unknown deadline"]


async def test_concurrent_pings_share_one_round_trip() -> None:
    async with connected() as (publisher, session):
        pings = [asyncio.create_task(publisher.ping()) for _ in range(5)]
        await session.expect(Exchange.Declare)
        session.send(Exchange.DeclareOk())
        assert await asyncio.gather(*pings) == [True] * 5
        unanswered = await publisher.ping()
        session.send(Exchange.DeclareOk())
        assert not unanswered
        await session.expect(Exchange.Declare)
        assert not publisher._connection.ended.done()  # type: ignore[union-attr]  # noqa: SLF001 - late is accepted


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return self_signed(tmp_path_factory.mktemp("tls"))


async def test_amqps_trusts_the_certificates_of_the_machine(certificate: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    async with listening(server_context(certificate)) as peer, running(peer.url("amqps")) as publisher:
        session = await peer.opened()
        await ready(publisher)
        publishes = publishing(publisher, 1)
        await session.message()
        session.send(Basic.Ack(1))
        assert await outcomes(publishes) == ["confirmed"]
        session.reset()


async def test_amqps_refuses_an_untrusted_certificate(certificate: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with listening(server_context(certificate)) as peer, running(peer.url("amqps")) as publisher:
        await until(lambda: "broker away" in caplog.messages)
        assert await outcomes(publishing(publisher, 1)) == ["refused broker-away"]
    assert "CERTIFICATE_VERIFY_FAILED" in str([record.__dict__ for record in caplog.records])


async def test_unencodable_message_uses_no_tag() -> None:
    async with connected() as (publisher, session):
        with pytest.raises(TypeError):
            await publisher.publish(message()._replace(routing_key="q" * 300))
        assert publisher.in_flight == 0
        publishes = publishing(publisher, 2)
        await session.messages(2)
        session.send(Basic.Nack(1))
        session.send(Basic.Ack(2))
        assert await outcomes(publishes) == ["refused queue-full", "confirmed"]


async def test_ack_of_an_unknown_tag_closes_the_connection() -> None:
    async with connected() as (publisher, session):
        publishes = publishing(publisher, 2)
        await session.messages(2)
        session.send(Basic.Ack(0, multiple=True))
        assert await outcomes(publishes) == ["unknown connection-lost"] * 2


async def test_connection_is_closed_if_an_answer_is_overdue(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "OWED_MAX_S", 0.3)
    async with connected(deadline_s=2) as (publisher, session):  # the ack must arrive before the deadline
        publishes = publishing(publisher, 2)
        await session.messages(2)
        session.send(Basic.Ack(2))
        assert await outcomes(publishes) == ["unknown deadline", "confirmed"]
        await until(lambda: publisher.in_flight == 0)


async def test_broker_that_never_confirms_is_left_for_another_one(monkeypatch: pytest.MonkeyPatch) -> None:
    assert module.OWED_MAX_S < DEADLINE_S  # the test itself waits for less
    monkeypatch.setattr(module, "OWED_MAX_S", 0.5)
    async with listening() as peer, running(peer.url(), deadline_s=0.2) as publisher:
        mute = await peer.opened()
        await ready(publisher)
        connection = publisher._connection  # noqa: SLF001
        assert connection is not None
        assert await outcomes(publishing(publisher, 1)) == ["unknown deadline"]
        await mute.messages(1)
        # sooner than missed heartbeats, which take 20 s
        await until(connection.ended.done, deadline_s=DEADLINE_S)
        patient(publisher)
        session = await peer.opened()
        await ready(publisher)
        publishes = publishing(publisher, 1)
        await session.messages(1)
        session.send(Basic.Ack(1))
        assert await outcomes(publishes) == ["confirmed"]


async def test_ping_of_an_ended_connection_fails_immediately() -> None:
    async with connected() as (publisher, session):
        connection = publisher._connection  # noqa: SLF001
        assert connection is not None
        session.reset()
        await until(connection.ended.done)
        assert not await publisher.ping()
        with pytest.raises(Ended) as caught:
            await connection.ping()
        assert caught.value is not connection.ended.result()


async def test_unexpected_error_during_connect_is_retried(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def unforeseen(*_: object) -> None:
        raise TypeError("an unexpected error")

    monkeypatch.setattr(Connected, "open", unforeseen)
    async with running("amqp://user:secret@127.0.0.1:1/"):
        await until(lambda: [record.message for record in caplog.records].count("broker away") > 1)
