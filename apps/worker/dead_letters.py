"""Commands for parked messages: `python -m apps.worker.dead_letters list`, `requeue ID` or `discard ID`.

A requeue gives the task a new id, and the old task's result shows it as `requeued_as`. The new id is stored before the
publish, and the parked message is acked last: a requeue that is repeated after a crash publishes the same id again, and
`begin` runs it only once.
"""

import argparse
import asyncio
import json
import logging
import sys
from collections.abc import AsyncIterator
from hashlib import blake2b
from typing import NamedTuple

from aiormq.abc import AbstractChannel, DeliveredMessage
from aiormq.exceptions import AMQPError, DeliveryError
from redis.asyncio import Redis
from redis.exceptions import RedisError

from apps import broker
from apps.amqp.deliveries import raw_properties
from apps.amqp.properties import decode
from apps.contract import quota, states, topology
from apps.contract.ids import TaskIds
from apps.contract.message import obstacle_to_requeue, republished
from apps.contract.settings import RequeueSettings, load
from apps.startup import tls_failure
from apps.worker import dead_letter_reader
from apps.worker.dead_letter_reader import DeadLetter

# Per message, not for the whole command, which may process thousands of messages.
DEADLINE_S = 30.0
REDIS_DEADLINE_S = 5.0
CLOSE_DEADLINE_S = 2.0
# The maximum of AMQP, above the length of dead.parked (topology.PARKED_MAX_MESSAGES). Without a prefetch count,
# RabbitMQ limits the consumer of a quorum queue to 2,000 messages.
PREFETCH_MAX = 65_535
HEARTBEAT_S = 10


class Parked(NamedTuple):
    """A parked message. `letter` is set only for a message with the wanted name, as bodies are large."""

    tag: int
    name: str
    summary: dict[str, object]
    letter: DeadLetter | None


async def parked(channel: AbstractChannel, wanted: str | None = None) -> AsyncIterator[Parked]:
    """All messages that are parked now, the oldest first; with letters for those whose name is `wanted`.

    A single consumer receives them all: its unacked messages return in their order when the connection ends, whereas
    messages from basic.get return in any order. Until then, other commands find no messages.
    """
    found: asyncio.Queue[Parked] = asyncio.Queue()

    async def on_message(message: DeliveredMessage) -> None:
        letter = dead_letter_reader.read(message)
        name = name_of(letter)
        said = _summary(name, letter, _died(message, letter))
        found.put_nowait(Parked(message.delivery_tag or 0, name, said, letter if name == wanted else None))

    async with asyncio.timeout(DEADLINE_S):
        count = (await channel.queue_declare(topology.PARKED_QUEUE, passive=True)).message_count or 0
        await channel.basic_qos(prefetch_count=PREFETCH_MAX)
        consuming = await channel.basic_consume(topology.PARKED_QUEUE, on_message)
    for _ in range(count):
        async with asyncio.timeout(DEADLINE_S):
            yield await found.get()
    async with asyncio.timeout(DEADLINE_S):
        await channel.basic_cancel(consuming.consumer_tag or "")


def name_of(letter: DeadLetter) -> str:
    """The name of a message in the commands: its id, or a digest of its content if it has none."""
    if (task_id := letter.text("id")) is not None:
        return task_id
    # exclude the broker's count of deliveries, which changes
    headers = {name: value for name, value in letter.headers.items() if name != "x-delivery-count"}
    return f"raw-{blake2b(repr(headers).encode() + letter.body, digest_size=8).hexdigest()}"


def _summary(name: str, letter: DeadLetter, died: object) -> dict[str, object]:
    """The output of the commands for a message."""
    line: dict[str, object] = {"id": name} | {name: letter.text(name) for name in ("task", "owner")}
    line |= {"reason": letter.failure["type"], "message": letter.failure["message"], "died": died}
    obstacle = _obstacle(letter)
    return line if obstacle is None else line | {"requeue": f"not possible: {obstacle}"}


async def list_parked(channel: AbstractChannel) -> None:
    """Print a JSON line for each parked message, the oldest first. The messages stay parked."""
    count = 0
    async for one in parked(channel):
        count += 1
        print(json.dumps(one.summary, default=str), flush=True)
    print(f"{count} parked." if count else "Nothing is parked.", file=sys.stderr)


async def discard(channel: AbstractChannel, name: str) -> None:
    """Delete a parked message permanently, and print it. Raises SystemExit if no message has this id."""
    for tag, said, _ in await _found(channel, name):
        print(json.dumps(said, default=str))
        await channel.basic_ack(tag)


async def requeue(channel: AbstractChannel, redis: Redis, ids: TaskIds, task_id: str, ttl_s: int) -> str:
    """Publish a parked task again; returns its new id.

    Raises SystemExit if no task is parked under `task_id`, if it cannot be requeued, or if the broker refuses it, and
    TimeoutError if the broker does not answer.
    """
    found = await _found(channel, task_id)
    letter = found[0].letter
    obstacle = _obstacle(letter)
    if obstacle is not None:
        raise SystemExit(f"{task_id} cannot be sent again: {obstacle}")
    key = states.requeued_key(task_id)
    owner = str(letter.headers["owner"])
    await redis.hsetnx(key, "requeued_as", ids.new(owner))
    await redis.expire(key, ttl_s)
    new_id = str(await redis.hget(key, "requeued_as"))
    queue = str(letter.headers["task"]).partition(":")[0]
    message = republished(letter.headers, letter.body, task_id=new_id, routing_key=queue)
    try:
        async with asyncio.timeout(DEADLINE_S):
            await broker.publish(channel, message)
    except DeliveryError as exc:  # returned, or nacked
        reason = f"the broker refuses it, as the queue {queue} is full or missing ({exc!r}): try again later"
        raise SystemExit(f"{task_id} was not requeued, and is still parked: {reason}") from None
    await redis.hincrby(quota.key(owner), quota.field(new_id), 1)
    for tag, *_ in found:
        await channel.basic_ack(tag)
    return new_id


class _Found(NamedTuple):
    tag: int
    summary: dict[str, object]
    letter: DeadLetter


async def _found(channel: AbstractChannel, name: str) -> list[_Found]:
    """The messages with this id: more than one if the recorder parked it again after a crash."""
    found = [
        _Found(one.tag, one.summary, one.letter)
        async for one in parked(channel, name)
        if one.letter is not None  # the name matches
    ]
    if not found:
        raise SystemExit(f"no parked message has the id {name}: see `make dead-letters`")
    return found


def _obstacle(letter: DeadLetter) -> str | None:
    """Why a message cannot be requeued; None if it can."""
    if letter.malformed:
        return f"{letter.failure['message']}; post the task again"
    return obstacle_to_requeue(letter.headers)


def _died(message: DeliveredMessage, letter: DeadLetter) -> object:
    found = decode(raw_properties(message)).get("timestamp")
    deaths = letter.headers.get("x-death")  # earlier versions set no timestamp
    first = deaths[0] if isinstance(deaths, list) and deaths else {}
    return found if found is not None or not isinstance(first, dict) else first.get("time")


async def main() -> None:
    """Run the command in the command line."""
    parser = argparse.ArgumentParser(prog="dead_letters", description="List, requeue or discard parked messages.")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list", help="list parked messages")
    commands.add_parser("requeue", help="publish a parked task again, with a new id").add_argument("id")
    commands.add_parser("discard", help="delete a parked message permanently").add_argument("id")
    arguments = parser.parse_args()
    settings = load(RequeueSettings)
    logging.getLogger("aiormq").setLevel(logging.CRITICAL)  # reported by the sentence below
    try:
        await _run(settings, arguments.command, getattr(arguments, "id", ""))
    except (AMQPError, TimeoutError, RedisError, OSError) as exc:
        reason = tls_failure(exc) or repr(exc)
        raise SystemExit(
            f"the broker or Redis returned an error or no answer ({reason}): check that both are running"
        ) from None


async def _run(settings: RequeueSettings, command: str, task_id: str) -> None:
    connection = broker.connection(settings.celery_broker_url.get_secret_value(), HEARTBEAT_S)
    try:
        async with asyncio.timeout(DEADLINE_S):
            await connection.connect()
            channel = await connection.channel(publisher_confirms=True, on_return_raises=True)
        if command == "list":
            await list_parked(channel)
        elif command == "discard":
            await discard(channel, task_id)
        else:
            url = settings.celery_result_backend.get_secret_value()
            async with Redis.from_url(
                url,
                decode_responses=True,
                socket_timeout=REDIS_DEADLINE_S,
                socket_connect_timeout=REDIS_DEADLINE_S,
            ) as redis:
                ids = TaskIds(settings.task_id_key.get_secret_value().encode())
                print(await requeue(channel, redis, ids, task_id, settings.record_ttl_s))
    finally:
        await connection.close(timeout=CLOSE_DEADLINE_S)


if __name__ == "__main__":
    asyncio.run(main())
