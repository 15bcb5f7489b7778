"""The proxy forwards, resets and silences connections."""

import socket
import threading
from collections.abc import Iterator

import pytest

from tests.chaos.proxy import Proxy

DEADLINE_S = 60.0


@pytest.fixture
def proxy() -> Iterator[Proxy]:
    """A proxy in front of an echo server."""
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


def test_forwards_both_directions_and_end_of_stream(proxy: Proxy) -> None:
    with _connect(proxy) as connection:
        assert _asks(connection) == b"abc"
        connection.shutdown(socket.SHUT_WR)
        assert connection.recv(100) == b""


def test_reset_closes_open_and_new_connections_until_heal(proxy: Proxy) -> None:
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


def test_silence_keeps_connections_open_and_heal_resets_those_that_lost_data(proxy: Proxy) -> None:
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


def test_silence_without_traffic_leaves_connection_usable_after_heal(proxy: Proxy) -> None:
    with _connect(proxy) as connection:
        assert _asks(connection) == b"abc"
        proxy.silence()
        proxy.heal()
        assert _asks(connection) == b"abc"


def test_resets_connection_if_server_refuses() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = server.getsockname()
    # The reset may arrive while the client still connects.
    with Proxy([address]) as proxy, pytest.raises(ConnectionResetError), _connect(proxy) as connection:
        connection.recv(100)
