"""Each user keeps one connection, also with descriptors above the limit of select(), and ends between requests."""

import asyncio
import threading
from collections.abc import Callable, Iterator

import pytest

from loadtest import stub
from loadtest.ledger import Ledger
from ops.servers.child import until
from ops.servers.ports import free_ports, is_open

USERS = 12  # in the shape `short`
READY_S = 30
# select() supports descriptors up to 1,023: this makes every connection of Locust use a higher one.
CROWDED = """
import os, resource, runpy
resource.setrlimit(resource.RLIMIT_NOFILE, (4096, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
there = [os.open(os.devnull, os.O_RDONLY) for _ in range(1024)]
runpy.run_module("locust", run_name="__main__")
"""


class Counted(stub.Http):
    """Count the connections, and record the Host headers."""

    made = 0
    hosts: set[str] = set()  # noqa: RUF012 - the fixture empties it for each test

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        Counted.made += 1
        super().connection_made(transport)

    def on_header(self, name: bytes, value: bytes) -> None:
        if name.lower() == b"host":
            self.hosts.add(value.decode())
        super().on_header(name, value)


@pytest.fixture
def stubbed(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[int, stub.Tasks]]:
    """A stub that counts its connections: its port, and its tasks."""
    monkeypatch.setattr(stub, "Http", Counted)
    (port,) = free_ports(1)
    tasks = stub.Tasks()
    loop = asyncio.new_event_loop()
    serving = loop.create_task(stub.serve(port, tasks))

    def run() -> None:
        with pytest.raises(asyncio.CancelledError):
            loop.run_until_complete(serving)
        loop.close()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    until(lambda: is_open(port), READY_S, "the stub")
    Counted.made = 0
    Counted.hosts.clear()
    yield port, tasks
    loop.call_soon_threadsafe(serving.cancel)
    thread.join()


def test_user_keeps_its_connection(locust: Callable[..., Ledger], stubbed: tuple[int, stub.Tasks]) -> None:
    ledger = locust("short", stubbed[0], start=("-c", CROWDED))
    assert not ledger.failures
    assert ledger.seconds[-1][2] > 5 * USERS  # requests
    assert Counted.made < 2 * USERS  # the port probes of the fixture may be among them


def test_user_ends_before_or_after_a_post_but_not_during_one(
    locust: Callable[..., Ledger], stubbed: tuple[int, stub.Tasks]
) -> None:
    ledger = locust("ended", stubbed[0], start=("-c", CROWDED))
    assert not ledger.failures
    assert len(ledger.tasks) == sum(stubbed[1].accepted.values()) > 0


def test_every_request_has_the_host_header_of_the_ingress(
    locust: Callable[..., Ledger], stubbed: tuple[int, stub.Tasks], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLUICE_HOST", "tasks.example.com")
    assert not locust("short", stubbed[0]).failures
    assert Counted.hosts == {"tasks.example.com"}
