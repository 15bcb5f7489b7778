"""aiormq for the recorder and the dead-letter commands, with one exception for all errors of a lost connection."""

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
    """The connection ended or timed out: open requests have no known outcome."""


class Refused(Lost):
    """The broker refuses the login, the user lacks a permission, a queue is missing, or TLS verification fails."""


@contextmanager
def losses() -> Iterator[None]:
    """Raise Lost for every exception that aiormq raises when its connection ends.

    DeliveryError, an answer of the broker (nacked or returned), is re-raised, and so is a cancellation by our own code.
    aiormq also cancels its callers, when it closes the connection to a silent broker: that is a Lost.
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
    """The reason if the broker refused the user, lacks a queue, or failed TLS verification; None for other errors."""
    if failure := tls_failure(exc):
        return failure
    if isinstance(exc, ChannelNotFoundEntity):
        return f"404 {exc.args[0]}"
    if isinstance(exc, ProbableAuthenticationError | ChannelAccessRefused):
        return f"403 {exc.args[0]}"
    # aiormq drops the broker's reason when the broker closes the connection at Connection.Open
    if isinstance(exc, InvalidFrameError) and "Connection.OpenOk" in str(exc):
        return "530 NOT_ALLOWED: the virtual host does not exist, or this user may not enter it"
    return None


def connection(url: str, heartbeat_s: int) -> aiormq.Connection:
    """An unopened connection to one of the URL's hosts. It ends if the broker is silent for three heartbeats.

    Read its messages with apps/worker/dead_letter_reader.py.
    """
    host = random.choice(url.split(";"))  # noqa: S311 - load spreading: after a loss, the next attempt may use another host
    return aiormq.Connection(URL(host).update_query(heartbeat=heartbeat_s), transport_factory=Transport())


async def publish(channel: AbstractChannel, message: Republished) -> None:
    """Publish a requeued task, persistent and mandatory, on a channel with confirms. Raises aiormq's exceptions."""
    properties = Basic.Properties(
        headers=message.headers,
        content_type=CONTENT_TYPE,
        content_encoding=CONTENT_ENCODING,
        correlation_id=message.task_id,
        message_id=message.task_id,  # aiormq identifies a returned message by it
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
