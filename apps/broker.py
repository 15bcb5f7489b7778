"""aiormq as the recorder and the dead-letter commands use it: its many ways of losing a connection made one."""

import asyncio
import random
from collections.abc import Iterator
from contextlib import contextmanager

import aiormq
from aiormq.abc import AbstractChannel
from aiormq.exceptions import (
    AMQPError,
    ChannelAccessRefused,
    ChannelNotFoundEntity,
    DeliveryError,
    InvalidFrameError,
    ProbableAuthenticationError,
)
from pamqp.commands import Basic
from yarl import URL

from apps.amqp.deliveries import Transport
from apps.contract import topology
from apps.contract.message import CONTENT_ENCODING, CONTENT_TYPE, Republished
from apps.startup import tls_failure


class Lost(Exception):
    """The connection ended, or did not answer in time: what was under way has no known outcome."""


class Refused(Lost):
    """The broker refuses the login, the user lacks a permission, a queue is missing, or TLS finds another server."""


@contextmanager
def losses() -> Iterator[None]:
    """Raise Lost for whatever aiormq raises when its connection ends.

    An answer of the broker (DeliveryError: nacked or returned) passes, and so does a cancellation of ours; aiormq
    cancels its callers too, when a silent broker is given up.
    """
    try:
        yield
    except DeliveryError:
        raise
    except asyncio.CancelledError as exc:
        if (task := asyncio.current_task()) and task.cancelling():
            raise
        raise Lost("cancelled by aiormq") from exc
    except (AMQPError, OSError, RuntimeError, ValueError) as exc:
        if refusal := _refusal(exc):
            raise Refused(refusal) from exc
        raise Lost(repr(exc)) from exc


def _refusal(exc: Exception) -> str | None:
    """Why the broker refuses this user, what it lacks, or why we refuse it; None for any other reason."""
    if failure := tls_failure(exc):
        return failure
    if isinstance(exc, ChannelNotFoundEntity):
        return f"404 {exc.args[0]}"
    if isinstance(exc, ProbableAuthenticationError | ChannelAccessRefused):
        return f"403 {exc.args[0]}"
    # aiormq drops what the broker says when it closes the connection at Connection.Open
    if isinstance(exc, InvalidFrameError) and "Connection.OpenOk" in str(exc):
        return "530 NOT_ALLOWED: the virtual host does not exist, or this user may not enter it"
    return None


def connection(url: str, heartbeat_s: int) -> aiormq.Connection:
    """An unopened connection to one of the URL's hosts. A broker that is silent for three heartbeats is given up.

    Messages that it delivers are read by apps/worker/dead_letter.py.
    """
    host = random.choice(url.split(";"))  # noqa: S311 - whichever: after a loss the next attempt may find another one
    return aiormq.Connection(URL(host).update_query(heartbeat=heartbeat_s), transport_factory=Transport())


async def publish(channel: AbstractChannel, message: Republished) -> None:
    """Publish a task again, persistent and mandatory, on a channel with confirms. Raises what aiormq raises."""
    properties = Basic.Properties(
        headers=message.headers,
        content_type=CONTENT_TYPE,
        content_encoding=CONTENT_ENCODING,
        correlation_id=message.task_id,
        message_id=message.task_id,  # aiormq matches a returned message by it
        delivery_mode=2,  # persistent
        reply_to="",
        priority=0,
    )
    await channel.basic_publish(
        message.body,
        exchange=topology.EXCHANGE,
        routing_key=message.routing_key,
        mandatory=True,
        properties=properties,
    )
