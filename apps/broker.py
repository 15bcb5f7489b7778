"""aiormq as both the API and the recorder use it: its many ways of losing a connection made one."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

import aiormq
from aiormq.exceptions import AMQPError, DeliveryError
from yarl import URL


class Lost(Exception):
    """The connection ended, or did not answer in time: what was under way has no known outcome."""


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
        raise Lost(repr(exc)) from exc


def connection(url: str, heartbeat_s: int) -> aiormq.Connection:
    """An unopened connection. A broker that is silent for three heartbeats is given up."""
    return aiormq.Connection(URL(url).update_query(heartbeat=heartbeat_s))
