"""The proxy carries, resets and is silent, as told."""

import socket
import threading
from collections.abc import Iterator

import pytest

from tests.chaos.proxy import Proxy

DEADLINE_S = 60.0


@pytest.fixture
def proxy() -> Iterator[Proxy]:
    """In front of a server that answers what it is sent."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=_echo, args=(server,), daemon=True).start()
        with Proxy([server.getsockname()]) as started:
            yield started
        server.shutdown(socket.SHUT_RDWR)


def _echo(server: socket.socket) -> None:
    while True:
        try:
            connection, _ = server.accept()
        except OSError:
            return
        threading.Thread(target=_answer, args=(connection,), daemon=True).start()


def _answer(connection: socket.socket) -> None:
    with connection:
        try:
            while data := connection.recv(100):
                connection.sendall(data)
        except OSError:
            return


def _connect(proxy: Proxy) -> socket.socket:
    return socket.create_connection(("127.0.0.1", proxy.ports[0]), DEADLINE_S)


def _asks(connection: socket.socket) -> bytes:
    connection.sendall(b"abc")
    return connection.recv(100)


def test_carries_both_ways_and_the_end(proxy: Proxy) -> None:
    with _connect(proxy) as connection:
        assert _asks(connection) == b"abc"
        connection.shutdown(socket.SHUT_WR)
        assert connection.recv(100) == b""


def test_resets_what_there_is_and_what_comes_until_it_heals(proxy: Proxy) -> None:
    with _connect(proxy) as connection:
        assert _asks(connection) == b"abc"
        proxy.reset()
        with pytest.raises(ConnectionResetError):
            connection.recv(100)
    # The reset may arrive while the client still connects.
    with pytest.raises(ConnectionError), _connect(proxy) as connection:
        assert not _asks(connection)
    proxy.heal()
    with _connect(proxy) as connection:
        assert _asks(connection) == b"abc"


def test_silence_keeps_connections_open_and_what_it_swallowed_is_gone(proxy: Proxy) -> None:
    with _connect(proxy) as connection:
        assert _asks(connection) == b"abc"
        proxy.silence()
        connection.settimeout(0.3)
        with pytest.raises(TimeoutError):
            _asks(connection)
        proxy.heal()
        connection.settimeout(DEADLINE_S)
        with pytest.raises(ConnectionResetError):
            connection.recv(100)


def test_silence_that_nobody_spoke_into_leaves_a_connection_as_it_was(proxy: Proxy) -> None:
    with _connect(proxy) as connection:
        assert _asks(connection) == b"abc"
        proxy.silence()
        proxy.heal()
        assert _asks(connection) == b"abc"


def test_nobody_behind_it_is_nobody_for_whoever_connects() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = server.getsockname()
    # The reset may arrive while the client still connects.
    with Proxy([address]) as proxy, pytest.raises(ConnectionResetError), _connect(proxy) as connection:
        connection.recv(100)
