"""Publishes messages with confirms at the publisher's maximum rate."""

import asyncio
import time
from collections.abc import Iterator

from apps.api.publisher import CONFIRMED, WINDOW, Publisher
from apps.contract.message import TaskMessage
from tests.harness.fake_broker import eventually


async def publish_all(url: str, messages: Iterator[TaskMessage]) -> float:
    """Publish the messages with a full window, and return the time until all are confirmed, in seconds."""
    publisher = Publisher(url, deadline_s=60, in_flight_max=2 * WINDOW, heartbeat_s=10)
    run = asyncio.create_task(publisher.run())
    await eventually(publisher.ping, wanted=True)

    async def publish_some() -> None:
        for message in messages:
            assert await publisher.publish(message) is CONFIRMED

    started_s = time.perf_counter()
    await asyncio.gather(*(publish_some() for _ in range(WINDOW)))
    took_s = time.perf_counter() - started_s
    run.cancel()
    await asyncio.wait([run])
    return took_s
