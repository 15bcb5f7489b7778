"""Today's processes read and finish the data that commit 0ddeda5 left in the broker and in Redis.

earlier_0ddeda5.json was recorded by running that commit's API, worker, recorder and `dead_letters requeue` with its
own tests/harness. The messages were then read from their queues with basic.get (the content header as on the wire, in
hexadecimal; the body as text), and the records from Redis with HGETALL. The file contains waiting tasks (single, in
batches, and with an Idempotency-Key), the key of an API that was killed after its publish, a retry in its delay queue,
another retry whose task was cancelled meanwhile, the message of a killed worker, a dead letter, a parked message, a
requeued message, and a record in each state.
"""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiormq
import pytest
from pamqp.header import ContentHeader

from tests.harness.system import Api, System, until
from tests.integration.test_dead_letters import command

EARLIER: dict[str, Any] = json.loads((Path(__file__).parent / "earlier_0ddeda5.json").read_text())
# So long that the ids of that day never expire.
FOREVER: dict[str, Any] = {"RESULT_TTL_S": "3000000000", "RETRY_BACKOFF_S": "1", "RETRY_BACKOFF_MAX_S": "1"}


@pytest.fixture(scope="module")
def api(shared: System) -> Iterator[Api]:
    shared.task_id_key = EARLIER["task_id_key"]
    for key, record in EARLIER["redis"].items():
        shared.redis.hset(key, mapping=record["fields"])
    send(
        shared,
        [*EARLIER["waiting"], *(one for part in ("lost", "dead", "parked") for one in EARLIER[part]["messages"])],
    )
    send(shared, EARLIER["requeued"]["messages"])
    api = shared.api(**FOREVER)
    shared.recorder(**FOREVER)
    shared.worker(**FOREVER)  # declares the delay queues
    send(shared, [*EARLIER["retry"]["messages"], *EARLIER["cancelled_retry"]["messages"]])
    yield api
    shared.redis.delete(*EARLIER["redis"])


def send(system: System, messages: list[dict[str, str]]) -> None:
    """Publish recorded messages to the exchange and key from which they came."""

    async def publish() -> None:
        connection = await aiormq.connect(system.servers.rabbitmq.url(vhost=system.vhost))
        channel = await connection.channel(publisher_confirms=True, on_return_raises=True)
        for message in messages:
            header = ContentHeader()
            header.unmarshal(bytes.fromhex(message["header"]))
            await channel.basic_publish(
                message["body"].encode(),
                exchange=message["exchange"],
                routing_key=message["routing_key"],
                properties=header.properties,
                mandatory=True,
            )
        await connection.close()

    asyncio.run(publish())


def test_recorded_messages_have_the_earlier_form() -> None:
    """Otherwise the tests below would not test the earlier form."""
    messages = [*EARLIER["waiting"], *EARLIER["retry"]["messages"], *EARLIER["parked"]["messages"]]
    assert {type(json.loads(message["body"])[0][0]) for message in messages} == {dict}


@pytest.mark.parametrize("task", EARLIER["plain"])
def test_waiting_task_of_the_earlier_version_succeeds(api: Api, task: str) -> None:
    ended = api.ended(EARLIER["plain"][task])
    (sent,) = (
        json.loads(message["body"])[0][0]
        for message in EARLIER["waiting"]
        if EARLIER["plain"][task].encode().hex() in message["header"]
    )
    assert (ended["task_status"], ended["task_result"]) == ("SUCCESS", {"name_task": sent["name"], "state": "done"})


@pytest.mark.parametrize("key", EARLIER["keys"])
def test_idempotency_key_of_the_earlier_version_returns_the_same_tasks(api: Api, shared: System, key: str) -> None:
    earlier = EARLIER["keys"][key]
    headers = {"Idempotency-Key": earlier["key"], "Content-Type": "application/json"}
    answer = api.client.post(earlier["path"], content=earlier["body"].encode(), headers=headers)
    assert answer.status_code == 202
    found = [outcome.get("task_id") for outcome in answer.json().get("outcomes", [answer.json()])]
    assert found == earlier.get("ids", [earlier.get("id")])
    inputs = json.loads(earlier["body"]).get("tasks", [json.loads(earlier["body"])])
    for task_id, given in zip(found, inputs, strict=True):
        if task_id is not None:
            assert api.ended(task_id)["task_status"] == "SUCCESS"
            assert shared.effects(given["name"], "begun") == 1
    changed = api.client.post(earlier["path"], content=b" " + earlier["body"].encode(), headers=headers)
    assert changed.json()["type"] == "urn:sluice:problem:key-reused"


@pytest.mark.parametrize("state", ["SUCCESS", "FAILURE", "FAILURE_requeued", "REVOKED"])
def test_final_record_of_the_earlier_version_is_read_unchanged(api: Api, state: str) -> None:
    assert api.status(EARLIER["states"][state]) == EARLIER["seen"][state]


@pytest.mark.parametrize("part", ["retry", "lost"])
def test_started_task_of_the_earlier_version_succeeds(api: Api, part: str) -> None:
    """The retry fails once more here, which publishes its message again in the earlier form."""
    assert api.ended(EARLIER[part]["id"])["task_status"] == "SUCCESS"


def test_task_cancelled_before_its_retry_is_revoked(api: Api) -> None:
    assert api.ended(EARLIER["cancelled_retry"]["id"])["task_status"] == "REVOKED"


def test_dead_letter_of_the_earlier_version_is_a_failure(api: Api) -> None:
    assert api.ended(EARLIER["dead"]["id"])["task_status"] == "FAILURE"


def test_requeued_task_of_the_earlier_version_succeeds(api: Api) -> None:
    assert api.ended(EARLIER["requeued"]["new_id"])["task_status"] == "SUCCESS"


def test_parked_task_of_the_earlier_version_can_be_requeued(api: Api, shared: System) -> None:
    until(lambda: shared.depth_messages("dead.parked") == 2)
    task_id = EARLIER["parked"]["id"]
    new_id = command(shared, "requeue", task_id).strip()
    assert api.ended(new_id)["task_status"] == "SUCCESS"
    assert api.status(task_id)["task_result"]["requeued_as"] == new_id
