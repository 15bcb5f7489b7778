"""The parked messages: `python -m apps.worker.dead_letters list`, or `requeue ID`.

A requeue gives the work a new id, which the old task's result then names as `requeued_as`. The new id is noted
before it is published, and the parked message acked last: repeated after a crash, it sends the same id again,
and `begin` runs it once.
"""

import argparse
import asyncio
import json
import logging
import sys
from typing import Any

from aiormq.abc import AbstractChannel, DeliveredMessage
from aiormq.exceptions import AMQPError, DeliveryError
from redis.asyncio import Redis
from redis.exceptions import RedisError

from apps import broker
from apps.contract import failures, states, topology
from apps.contract.ids import TaskIds
from apps.contract.message import obstacle_to_requeue, republished
from apps.contract.settings import RequeueSettings, load
from apps.startup import tls_failure

# More are for a management page; this is for a person's terminal.
LIST_MAX = 1000
DEADLINE_S = 30.0
HEARTBEAT_S = 10


async def list_parked(channel: AbstractChannel) -> None:
    """Print one JSON line for each parked message, the oldest first; they stay parked."""
    messages = await _parked(channel)
    if not messages:
        print("Nothing is parked.", file=sys.stderr)
    for message in messages:
        headers = _headers(message)
        failure = failures.of_dead_letter(headers)
        deaths = headers.get("x-death") or [{}]  # what an earlier version left of the time
        died = message.header.properties.timestamp or deaths[0].get("time")
        line = {name: headers.get(name) for name in ("id", "task", "owner")}
        line |= {"reason": failure["type"], "message": failure["message"], "died": died}
        obstacle = obstacle_to_requeue(headers, message.body)
        print(json.dumps(line if obstacle is None else line | {"requeue": f"not possible: {obstacle}"}, default=str))


async def requeue(channel: AbstractChannel, redis: Redis, ids: TaskIds, task_id: str, ttl_s: int) -> str:
    """Send a parked task again; answers its new id.

    Raises SystemExit where none is parked under `task_id`, or it cannot be sent again, or the broker refuses it.
    """
    found = [message for message in await _parked(channel) if _headers(message).get("id") == task_id]
    if not found:
        raise SystemExit(f"no parked message (of the first {LIST_MAX}) has the id {task_id}: see `make dead-letters`")
    headers = _headers(found[0])
    obstacle = obstacle_to_requeue(headers, found[0].body)
    if obstacle is not None:
        raise SystemExit(f"{task_id} cannot be sent again: {obstacle}")
    key = states.requeued_key(task_id)
    await redis.hsetnx(key, "requeued_as", ids.new(str(headers.get("owner"))))
    await redis.expire(key, ttl_s)
    new_id = str(await redis.hget(key, "requeued_as"))
    queue = str(headers["task"]).partition(":")[0]
    message = republished(headers, found[0].body, task_id=new_id, routing_key=queue)
    try:
        await broker.publish(channel, message)
    except DeliveryError as exc:  # returned, or nacked
        reason = f"the broker has no room or no route for it in the queue {queue} ({exc!r}): do it again later"
        raise SystemExit(f"{task_id} was not sent again, and is still parked: {reason}") from None
    for parked in found:
        await channel.basic_ack(parked.delivery_tag or 0)
    return new_id


async def _parked(channel: AbstractChannel) -> list[DeliveredMessage]:
    """Take what is parked; what is not acked returns when the connection ends."""
    messages = []
    for _ in range(LIST_MAX):
        message = await channel.basic_get(topology.PARKED_QUEUE)
        if message.delivery_tag is None:
            break
        messages.append(message)
    return messages


def _headers(message: DeliveredMessage) -> dict[str, Any]:
    return dict(message.header.properties.headers or {})


async def main() -> None:
    """Read the command line and do what it says."""
    parser = argparse.ArgumentParser(prog="dead_letters", description="Work with parked messages.")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list", help="show what is parked")
    commands.add_parser("requeue", help="send one again").add_argument("id")
    arguments = parser.parse_args()
    settings = load(RequeueSettings)
    logging.getLogger("aiormq").setLevel(logging.CRITICAL)  # the sentence below says it
    try:
        async with asyncio.timeout(DEADLINE_S):
            await _run(settings, arguments.command, getattr(arguments, "id", ""))
    except (AMQPError, RedisError, OSError) as exc:
        reason = tls_failure(exc) or repr(exc)
        raise SystemExit(f"the broker or Redis does not answer as it should ({reason}): is the system up?") from None


async def _run(settings: RequeueSettings, command: str, task_id: str) -> None:
    connection = broker.connection(settings.celery_broker_url.get_secret_value(), HEARTBEAT_S)
    try:
        await connection.connect()
        channel = await connection.channel(publisher_confirms=True, on_return_raises=True)
        if command == "list":
            await list_parked(channel)
        else:
            url = settings.celery_result_backend.get_secret_value()
            async with Redis.from_url(url, decode_responses=True) as redis:
                ids = TaskIds(settings.task_id_key.get_secret_value().encode())
                print(await requeue(channel, redis, ids, task_id, settings.record_ttl_s))
    finally:
        await connection.close()


if __name__ == "__main__":
    asyncio.run(main())
