"""The scripts `begin`, `end` and `cancel` in a real Redis: exclusive execution, and one final state."""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import islice
from uuid import uuid4

import pytest
import redis

from apps.contract import states
from apps.contract.settings import WorkerSettings, load
from apps.worker.backend import Backend
from apps.worker.celery_app import create_app
from tests.harness.records import RECORD_TTL_S, RESULT_TTL_S, Records
from tests.harness.servers import Servers


@pytest.fixture
def records(servers: Servers) -> Iterator[Records]:
    with redis.Redis.from_url(servers.redis.url(), decode_responses=True) as client:
        yield Records(client)


@pytest.fixture
def task_id() -> str:
    return uuid4().hex


def test_task_without_a_record_is_pending(records: Records, task_id: str) -> None:
    assert records.read(task_id) == states.Record(state="PENDING")


def test_begin_claims_a_task_and_end_stores_its_result(records: Records, task_id: str) -> None:
    assert records.begin(task_id, "p1") == "run"
    assert records.read(task_id) == states.Record(state="STARTED", tries=1, started_s=1.5)
    assert records.end(task_id, "p1", "SUCCESS", '{"a": 1}') == "stored"
    assert records.read(task_id) == states.Record(state="SUCCESS", meta='{"a": 1}', tries=1, started_s=1.5)


def test_redelivered_message_runs_again_and_a_second_publish_does_not(records: Records, task_id: str) -> None:
    assert records.begin(task_id, "p1") == "run"
    assert records.begin(task_id, "p1") == "run"
    assert records.begin(task_id, "p2") == "claimed"
    assert records.read(task_id).tries == 2


def test_ended_task_does_not_run_again(records: Records, task_id: str) -> None:
    records.begin(task_id, "p1")
    records.end(task_id, "p1", "FAILURE")
    assert records.begin(task_id, "p1") == records.begin(task_id, "p2") == "final"
    assert records.read(task_id).tries == 1


def test_first_end_is_kept(records: Records, task_id: str) -> None:
    records.begin(task_id, "p1")
    assert records.end(task_id, "p1", "SUCCESS", "1") == "stored"
    assert records.end(task_id, "p1", "FAILURE", "2") == "final"
    assert records.read(task_id).result == 1


def test_dead_second_publish_does_not_end_the_running_first_one(records: Records, task_id: str) -> None:
    records.begin(task_id, "p1")
    assert records.end(task_id, "p2", "FAILURE") == "claimed"
    assert records.read(task_id).state == "STARTED"


def test_given_back_task_has_the_state_from_before_its_begin(records: Records, task_id: str) -> None:
    before = records.open_tasks(task_id)
    records.begin(task_id, "p1")
    records.begin(task_id, "p1")
    assert records.give_back(task_id, "p2") == "claimed"
    assert records.give_back(task_id, "p1") == "returned"
    assert records.read(task_id).tries == 1
    assert records.give_back(task_id, "p1") == "returned"
    assert records.read(task_id) == states.Record(state="PENDING")
    assert records.give_back(task_id, "p1") == "claimed"
    assert records.open_tasks(task_id) == before


def test_cancelled_task_that_is_given_back_ends_once(records: Records, task_id: str) -> None:
    before = records.open_tasks(task_id)
    records.begin(task_id, "p1")
    assert records.cancel(task_id) == "STARTED"
    assert records.give_back(task_id, "p1") == "cancelled"
    assert records.give_back(task_id, "p1") == "claimed"
    assert (records.end(task_id, "p1", "FAILURE"), records.cancel(task_id)) == ("final", "REVOKED")
    assert records.read(task_id).state == "REVOKED"
    assert records.open_tasks(task_id) == before - 1


def test_end_without_begin_is_stored(records: Records, task_id: str) -> None:
    assert records.end(task_id, "p1", "FAILURE") == "stored"
    assert records.begin(task_id, "p1") == "final"


def test_one_of_many_concurrent_ends_is_stored(records: Records, task_id: str) -> None:
    records.begin(task_id, "p1")
    with ThreadPoolExecutor(16) as threads:
        answers = list(threads.map(lambda n: records.end(task_id, "p1", "SUCCESS", str(n)), range(64)))
    assert sorted(answers) == ["final"] * 63 + ["stored"]
    assert records.read(task_id).result == answers.index("stored")


def test_every_record_expires(records: Records, task_id: str) -> None:
    records.begin(task_id, "p1")
    assert RESULT_TTL_S < records.client.ttl(states.key(task_id)) <= RECORD_TTL_S
    records.end(task_id, "p1", "SUCCESS")
    assert 0 < records.client.ttl(states.key(task_id)) <= RESULT_TTL_S


def test_start_and_end_are_published_to_waiters(records: Records, task_id: str) -> None:
    begun, ended = states.begun_channel(task_id), states.channel(task_id)
    assert _told(records, task_id, "SUCCESS", '{"n": 1}') == [(begun, "STARTED"), (ended, 'SUCCESS {"n": 1}')]


def test_end_is_published_with_its_result_only_for_a_small_success(records: Records, task_id: str) -> None:
    """A FAILURE must be read: its `requeued_as` is in another record."""
    small = json.dumps("x" * (states.PUBLISHED_BYTES_MAX - 2))
    (_, (_, message)) = _told(records, task_id, "SUCCESS", small)
    assert states.published_end(message) == states.Record("SUCCESS", small)
    for state, meta in (("SUCCESS", json.dumps("x" * (states.PUBLISHED_BYTES_MAX - 1))), ("FAILURE", "{}")):
        (_, (_, message)) = _told(records, uuid4().hex, state, meta)
        assert message == state
        assert states.published_end(message) is None


def test_success_published_without_its_result_is_read_from_the_record() -> None:
    assert states.published_end("SUCCESS") is None
    assert states.published_end("SUCCESS ") is None


def test_large_result_is_not_read_with_the_record(records: Records) -> None:
    least, most = json.dumps("x" * (states.SMALL_BYTES_MAX - 2)), json.dumps("x" * (states.SMALL_BYTES_MAX - 1))
    for meta, found in ((least, {"meta": least}), (most, {"large_bytes": states.SMALL_BYTES_MAX + 1})):
        other = uuid4().hex
        records.end(other, "p1", "SUCCESS", meta)
        read = records.read(other)
        assert replace(read, large_from=0) == states.Record("SUCCESS", **found)
        assert bool(read.large_from) == bool(read.large_bytes)


def test_requeued_failure_is_read_with_its_new_id(records: Records, task_id: str) -> None:
    records.end(task_id, "p1", "FAILURE", json.dumps(states.failure("ValueError", "no")))
    assert records.read(task_id).requeued_as is None
    records.client.hset(states.requeued_key(task_id), "requeued_as", "a-new-id")
    assert records.read(task_id).requeued_as == "a-new-id"


def _told(records: Records, task_id: str, state: str, meta: str) -> list[tuple[str, str]]:
    """Return the channels and messages of a task that begins and ends."""
    with records.client.pubsub(ignore_subscribe_messages=True) as pubsub:  # type: ignore[no-untyped-call]
        pubsub.subscribe(states.channel(task_id), states.begun_channel(task_id))
        records.begin(task_id, "p1")
        records.end(task_id, "p1", state, meta)
        found = (pubsub.get_message(timeout=1) for _ in range(10))
        told = [(message["channel"], message["data"]) for message in islice(filter(None, found), 2)]
        assert pubsub.get_message(timeout=0.1) is None
    return told


def test_task_cancelled_before_it_begins_never_runs(records: Records, task_id: str) -> None:
    assert records.cancel(task_id) == "PENDING"
    assert records.read(task_id).state == "REVOKED"
    assert records.begin(task_id, "p1") == records.end(task_id, "p1", "SUCCESS") == "final"
    assert records.cancel(task_id) == "REVOKED"
    assert 0 < records.client.ttl(states.record_keys(task_id).earlier) <= RECORD_TTL_S


def test_task_cancelled_while_it_runs_may_end_but_not_begin_again(records: Records, task_id: str) -> None:
    records.begin(task_id, "p1")
    assert records.cancel(task_id) == "STARTED"
    assert records.read(task_id).state == "STARTED"
    assert records.begin(task_id, "p2") == "claimed"
    assert records.begin(task_id, "p1") == "cancelled"
    assert records.read(task_id).state == "REVOKED"
    assert records.end(task_id, "p1", "SUCCESS") == "final"


def test_cancelled_task_that_ends_by_itself_keeps_its_result(records: Records, task_id: str) -> None:
    records.begin(task_id, "p1")
    records.cancel(task_id)
    assert records.end(task_id, "p1", "SUCCESS", "1") == "stored"
    assert records.cancel(task_id) == "SUCCESS"
    assert records.read(task_id).result == 1


def test_only_running_tasks_are_signalled_to_end(records: Records, task_id: str) -> None:
    with records.client.pubsub(ignore_subscribe_messages=True) as pubsub:  # type: ignore[no-untyped-call]
        pubsub.subscribe(states.CANCEL_CHANNEL)
        waiting, running = f"{task_id}-waiting", f"{task_id}-running"
        records.begin(running, "p1")
        records.cancel(waiting)
        records.cancel(running)
        told = [message["data"] for _ in range(5) if (message := pubsub.get_message(timeout=1))]
    assert told == [running]


@pytest.fixture
def backend(servers: Servers) -> Backend:
    """The worker's backend with an open connection."""
    environment = {"CELERY_BROKER_URL": "amqp://u:a-password@h/", "CELERY_RESULT_BACKEND": servers.redis.url()}
    backend: Backend = create_app(load(WorkerSettings, environment)).backend
    assert backend.begin(uuid4().hex, "publish", 1.0, "me") == "run"
    return backend


def test_unread_reply_is_not_taken_for_the_reply_of_the_next_task(
    records: Records, backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        monkeypatch.undo()
        raise SystemExit  # as a signal handler may at any time

    (connection,) = backend._idle  # noqa: SLF001 - the connection to interrupt has no public access
    monkeypatch.setattr(connection, "read_response", interrupted)
    with pytest.raises(SystemExit):
        backend.begin(uuid4().hex, "publish", 1.0, "me")
    done = uuid4().hex
    records.end(done, "publish", "SUCCESS")
    assert [backend.begin(each, "publish", 1.0, "me") for each in (done, uuid4().hex)] == ["final", "run"]


def test_lost_connection_is_replaced(records: Records, backend: Backend) -> None:
    records.client.client_kill_filter(_type="normal", skipme=True)
    assert backend.begin(uuid4().hex, "publish", 1.0, "me") == "run"


def test_script_missing_in_redis_is_loaded_again(records: Records, backend: Backend) -> None:
    records.client.script_flush()
    assert backend.begin(uuid4().hex, "publish", 1.0, "me") == "run"
