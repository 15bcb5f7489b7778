"""TLS on loopback: self-made certificates, a proxy that terminates TLS, and a server that records received data."""

import asyncio
import socketserver
import ssl
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from threading import Thread
from typing import Self


def self_signed(folder: Path) -> Path:
    """Create a key and a self-signed certificate for 127.0.0.1, in one file."""
    key, certificate, both = (folder / name for name in ("key.pem", "certificate.pem", "both.pem"))
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=127.0.0.1",
         "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", certificate],
        check=True, capture_output=True, timeout=60,
    )  # fmt: skip
    both.write_text(key.read_text() + certificate.read_text())
    return both


class Authority:
    """A CA in a folder; clients trust `file`."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self._folder = folder
        self.file, self._key = folder / "ca.pem", folder / "ca.key"
        _openssl(
            "req", "-x509", *NEW_KEY, "-days", "1", "-subj", "/CN=test CA", "-keyout", self._key, "-out", self.file
        )

    def certificate(self, *names: str, days: int = 1) -> Path:
        """Create a key and a certificate for these subjectAltNames, in one file; days < 0 makes it expired."""
        stem = self._folder / str(len(list(self._folder.iterdir())))
        key, request, signed, both, extensions = (
            stem.with_suffix(f".{end}") for end in ("key", "csr", "crt", "pem", "ext")
        )
        extensions.write_text(f"subjectAltName={','.join(names)}\n")
        _openssl("req", *NEW_KEY, "-subj", "/CN=server", "-keyout", key, "-out", request)
        signing = ("-CA", self.file, "-CAkey", self._key, "-CAcreateserial", "-days", str(days), "-extfile", extensions)
        _openssl("x509", "-req", "-in", request, *signing, "-out", signed)
        both.write_text(key.read_text() + signed.read_text())
        return both


NEW_KEY = ("-newkey", "rsa:2048", "-nodes")


def _openssl(*arguments: str | Path) -> None:
    subprocess.run(["openssl", *arguments], check=True, capture_output=True, timeout=60)


class Impostor:
    """A server in its own threads that terminates TLS, sends `greeting`, and records what clients send afterwards."""

    def __init__(self, certificate: Path | None, greeting: bytes = b"") -> None:
        self.received = b""
        """The data received after the handshake; without a certificate, all data."""
        self.connections = 0
        context = server_context(certificate) if certificate else None
        impostor = self

        class Handler(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                impostor.connections += 1
                self.request.settimeout(5)
                with suppress(OSError):
                    socket = context.wrap_socket(self.request, server_side=True) if context else self.request
                    if greeting:
                        socket.sendall(greeting)
                    while data := socket.recv(65536):
                        impostor.received += data
                        if greeting:  # RabbitMQ closes a connection that does not speak AMQP
                            break

        self._server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.port = int(self._server.server_address[1])

    def __enter__(self) -> Self:
        Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


def server_context(certificate: Path) -> ssl.SSLContext:
    """Return the TLS context of a server with this certificate."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)
    return context


@asynccontextmanager
async def tls_in_front_of(port: int, certificate: Path) -> AsyncIterator[int]:
    """A context manager: a port that terminates TLS and forwards the plain data to `port`."""
    writers: list[asyncio.StreamWriter] = []

    async def pour(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", port)
        writers.extend((writer, inner_writer))
        await asyncio.gather(pour(reader, inner_writer), pour(inner_reader, writer))

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=server_context(certificate))
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for writer in writers:
            writer.transport.abort()
