"""Every part verifies its server before it sends a credential, and reports a problem in one sentence."""

import asyncio
import os
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import pytest

from apps.health import HealthFiles
from apps.worker.connection_attempts import connection_to_broker
from ops.management import Management
from ops.servers.child import Child
from tests.harness.system import ROOT, System, until
from tests.harness.thorough import thorough
from tests.harness.tls import Authority, Impostor, tls_in_front_of

PARTS = ("api", "worker", "recorder", "tool")
SETTINGS = {"broker": "CELERY_BROKER_URL", "redis": "CELERY_RESULT_BACKEND"}
LOOPBACK = ("DNS:localhost", "IP:127.0.0.1")
# RabbitMQ's answer to a client that does not speak AMQP
RABBITMQ = b"AMQP\x00\x00\x09\x01"


class Fault(NamedTuple):
    """A server that a client must refuse, and the expected message."""

    certificate: Path | None
    said: str


@pytest.fixture(scope="module")
def trusted(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("tls") / "trusted")


@pytest.fixture(scope="module")
def faults(trusted: Authority, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Fault]:
    other = Authority(tmp_path_factory.mktemp("tls") / "other")
    return {
        "wrong host": Fault(trusted.certificate("DNS:elsewhere.example"), "certificate is not valid for"),
        "untrusted CA": Fault(other.certificate(*LOOPBACK), "unable to get local issuer certificate"),
        "expired": Fault(trusted.certificate(*LOOPBACK, days=-1), "certificate has expired"),
        "plain": Fault(None, "does not speak TLS"),
    }


FAULTS = ("wrong host", "untrusted CA", "expired", "plain")


def tls_url(url: str, port: int, host: str = "localhost") -> str:
    """Return the URL for TLS with another port."""
    parts = urlsplit(url)
    return parts._replace(scheme=f"{parts.scheme}s", netloc=f"{parts.username}:{parts.password}@{host}:{port}").geturl()


@contextmanager
def in_front_of(port: int, certificate: Path) -> Iterator[int]:
    """Run a TLS proxy in front of a real server, on an event loop in a thread."""
    found: list[int] = []
    started, ended = threading.Event(), asyncio.Event()
    loop = asyncio.new_event_loop()

    async def serve() -> None:
        async with tls_in_front_of(port, certificate) as tls_port:
            found.append(tls_port)
            started.set()
            await ended.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    assert started.wait(30)
    try:
        yield found[0]
    finally:
        loop.call_soon_threadsafe(ended.set)
        thread.join()
        loop.close()


def started(system: System, part: str, settings: dict[str, Any]) -> Child:
    """Start a part with these settings, without waiting until it is ready."""
    if part == "api":
        return system.api(ready=False, **settings).child
    return system.worker(ready=False, **settings) if part == "worker" else system.recorder(ready=False, **settings)


def sentence(system: System, part: str, **settings: str) -> str:
    """Return the output of a part that exits because of these settings."""
    if part == "tool":
        command = [sys.executable, "-m", "apps.worker.dead_letters", "requeue", "none"]
        done = subprocess.run(
            command, env=system.environment("tool", **settings), cwd=ROOT, capture_output=True, text=True, timeout=60,
            check=False,
        )  # fmt: skip
        assert done.returncode != 0
        return done.stderr
    child = started(system, part, settings)
    until(lambda: not child.alive, what=f"the end of {part}, {child.log}")
    return child.log.read_text()


# The tool connects to Redis only for a parked task that it has found: the second test below covers this.
DIALLED = [(part, server) for part in PARTS for server in SETTINGS if (part, server) != ("tool", "redis")]
# Quick: every part and server with one fault, and every fault with one part.
CASES = [(*dialled, fault) for dialled in DIALLED for fault in FAULTS]
QUICK = [case for case in CASES if case[0] == "worker" or case[2] == "wrong host"]


@pytest.mark.parametrize(
    ("part", "server", "fault"), [*QUICK, *thorough(*(case for case in CASES if case not in QUICK))]
)
def test_no_password_is_sent_to_an_unverified_server(  # noqa: PLR0913, PLR0917 - three of them fixtures
    shared: System, trusted: Authority, faults: dict[str, Fault], part: str, server: str, fault: str
) -> None:
    certificate, said = faults[fault]
    setting = SETTINGS[server]
    with Impostor(certificate, greeting=RABBITMQ if certificate is None else b"") as impostor:
        url = tls_url(shared.environment(part)[setting], impostor.port)
        text = sentence(shared, part, SSL_CERT_FILE=str(trusted.file), **{setting: url})
    assert impostor.connections
    assert str(urlsplit(url).password).encode() not in impostor.received
    assert impostor.received == b"" or certificate is None  # a server without TLS receives the TLS client's hello
    assert said in text
    assert "Traceback" not in text
    # Exactly one line names the setting, besides the lines of the attempts.
    assert len([line for line in text.splitlines() if said in line and (part == "tool" or setting in line)]) == 1
    assert str(urlsplit(url).password) not in text


@pytest.mark.parametrize("fault", [FAULTS[0], *thorough(*FAULTS[1:])])
def test_tool_sends_no_password_to_an_unverified_redis(
    trusted: Authority, faults: dict[str, Fault], fault: str
) -> None:
    certificate, said = faults[fault]
    with Impostor(certificate, greeting=b"-ERR\r\n" if certificate is None else b"") as impostor:
        script = (
            "import asyncio, sys; from redis.asyncio import Redis; from apps.startup import tls_failure\n"
            "async def ask():\n"
            "    async with Redis.from_url(sys.argv[1], decode_responses=True) as redis:\n"
            "        await redis.hsetnx('k', 'f', 'v')\n"
            "try: asyncio.run(ask())\n"
            "except Exception as exc: print(tls_failure(exc))\n"
        )
        url = f"rediss://tool:a-password@localhost:{impostor.port}/0"
        done = subprocess.run(
            [sys.executable, "-c", script, url], cwd=ROOT, env=os.environ | {"SSL_CERT_FILE": str(trusted.file)},
            capture_output=True, text=True, timeout=60, check=True,
        )  # fmt: skip
    assert said in done.stdout
    assert b"a-password" not in impostor.received


@pytest.mark.parametrize("host", ["localhost", *thorough("127.0.0.1")])
def test_every_part_works_with_verified_servers(system: System, trusted: Authority, host: str) -> None:
    certificate = trusted.certificate(*LOOPBACK)
    with (
        in_front_of(system.servers.rabbitmq.port, certificate) as broker_port,
        in_front_of(system.servers.redis.port, certificate) as redis_port,
    ):

        def settings(user: str) -> dict[str, Any]:
            there = system.environment(user)
            ports = {"CELERY_BROKER_URL": broker_port, "CELERY_RESULT_BACKEND": redis_port}
            return {name: tls_url(there[name], port, host) for name, port in ports.items()} | {
                "SSL_CERT_FILE": str(trusted.file)
            }

        system.define(delivery_limit=1)
        system.worker(**settings("worker"))
        system.recorder(**settings("recorder"))
        api = system.api(**settings("api"))
        assert api.ended(api.accepted("sleep", key="k"))["task_status"] == "SUCCESS"
        poison = api.accepted("kill_child")
        assert api.ended(poison)["task_status"] == "FAILURE"
        until(lambda: system.depth_messages("dead.parked") == 1)
        command = [sys.executable, "-m", "apps.worker.dead_letters", "requeue", poison]
        subprocess.run(command, env=system.environment("tool", **settings("tool")), cwd=ROOT, check=True, timeout=60)


def test_worker_verifies_each_host_by_the_name_in_its_url(
    shared: System, trusted: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Celery disables TLS for the second of several hosts, and kombu replaces localhost by 127.0.0.1 to connect."""
    monkeypatch.setenv("SSL_CERT_FILE", str(trusted.file))
    there = shared.environment("worker")["CELERY_BROKER_URL"]
    with in_front_of(shared.servers.rabbitmq.port, trusted.certificate("DNS:localhost")) as port:
        urls = f"{tls_url(there, 1, '127.0.0.1')};{tls_url(there, port)}"  # nothing listens on port 1
        with connection_to_broker(HealthFiles(None, None))(urls) as connection:
            for _ in range(2):
                connection.ensure_connection(max_retries=3)
                assert isinstance(connection.connection.transport.sock, ssl.SSLSocket)
                connection.collect()


@pytest.mark.parametrize("fault", ["wrong host", *thorough(*FAULTS[1:])])
def test_client_sends_its_key_to_no_unverified_server(trusted: Authority, faults: dict[str, Fault], fault: str) -> None:
    certificate, _ = faults[fault]
    key = "a-bearer-key-of-a-client"
    with Impostor(certificate) as impostor:
        done = subprocess.run(
            [sys.executable, "-m", "tests.harness.client_command", "post", "first", "--name", "a"],
            cwd=ROOT, capture_output=True, text=True, timeout=60, check=False,
            env=os.environ | {
                "SLUICE_URL": f"https://localhost:{impostor.port}", "SLUICE_KEY": key,
                "SSL_CERT_FILE": str(trusted.file),
            },
        )  # fmt: skip
    assert done.returncode != 0
    assert impostor.connections
    assert key.encode() not in impostor.received
    assert "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize("fault", FAULTS)
def test_no_management_password_is_sent_to_an_unverified_server(
    trusted: Authority, faults: dict[str, Fault], fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`make up`, `make load` and `make rabbitmq-ui` use this client."""
    monkeypatch.setenv("SSL_CERT_FILE", str(trusted.file))
    with Impostor(faults[fault].certificate) as impostor, pytest.raises(OSError, match=r"(?i)ssl|timed out"):
        Management(f"https://localhost:{impostor.port}", "admin", "a-password", deadline_s=3)("/api/overview")
    assert b"YWRtaW46" not in impostor.received  # base64 of "admin:"
