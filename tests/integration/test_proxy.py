"""Clients bypass the environment's proxy for this machine, and use it for other hosts."""

import asyncio
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from apps.client import AsyncClient, Client, Task
from tests.harness.system import ROOT, Api, System
from tests.harness.thorough import thorough

NOBODY = "http://127.0.0.1:9"
PROXIES = [
    {"HTTP_PROXY": NOBODY},
    {"http_proxy": NOBODY, "https_proxy": NOBODY},
    {"ALL_PROXY": "socks5://127.0.0.1:9"},
    {"all_proxy": "socks5h://127.0.0.1:9", "NO_PROXY": "elsewhere.example"},
    {"HTTP_PROXY": "not a proxy at all"},
]


@pytest.fixture(scope="module")
def api(shared: System) -> Api:
    shared.worker()
    return shared.api()


# Quick: one HTTP proxy, and one SOCKS proxy with an exception.
QUICK = (PROXIES[0], PROXIES[3])


@pytest.fixture(
    params=[*QUICK, *thorough(*(proxy for proxy in PROXIES if proxy not in QUICK))],
    ids=lambda proxy: next(iter(proxy.items())),
)
def proxy(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    found: dict[str, str] = request.param
    for name in ("NO_PROXY", "no_proxy"):  # set by tests/conftest.py
        monkeypatch.delenv(name)
    for name, value in found.items():
        monkeypatch.setenv(name, value)
    return found


@pytest.fixture(params=["127.0.0.1", "localhost", "[::ffff:127.0.0.1]"])
def url(request: pytest.FixtureRequest, api: Api) -> str:
    return api.url.replace("127.0.0.1", request.param)


@pytest.mark.usefixtures("proxy")
def test_client_connects_to_this_machine_directly(url: str, shared: System) -> None:
    async def submit() -> str:
        async with AsyncClient(url, shared.key) as client:
            return await client.submit({"task": "second", "name": "abc"})

    with Client(url, shared.key) as client:
        task_id = client.submit({"task": "second", "name": "abc"})
        done = {"name_task": "abc", "state": "done"}
        assert client.result(task_id, 30) == Task(task_id, "SUCCESS", done)
        assert client.result(asyncio.run(submit()), 30).result == done


def test_command_connects_to_this_machine_directly(proxy: dict[str, str], api: Api, shared: System) -> None:
    environment = {"PATH": os.environ["PATH"], "SLUICE_URL": api.url, "SLUICE_KEY": shared.key, **proxy}
    command = [sys.executable, "-m", "tests.harness.client_command", "post", "--wait", "--line", ""]
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, '"task_status": "SUCCESS"' in done.stdout) == (0, True), done.stderr


class Proxy(ThreadingHTTPServer):
    """Answers every request for another host with 404, and records it."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        super().__init__(("127.0.0.1", 0), _Answer)


class _Answer(BaseHTTPRequestHandler):
    server: Proxy

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        self.send_response(404)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def listening() -> Iterator[Proxy]:
    with Proxy() as proxy:
        thread = threading.Thread(target=proxy.serve_forever)
        thread.start()
        yield proxy
        proxy.shutdown()
        thread.join()


def test_client_uses_the_proxy_for_another_host(listening: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("no_proxy")
    monkeypatch.delenv("NO_PROXY")
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{listening.server_port}")
    with Client("http://sluice.example", "k") as client, pytest.raises(Exception, match="404"):
        client.result("an-id", 5)
    assert listening.asked[0].startswith("http://sluice.example/tasks/an-id")


def test_unusable_proxy_for_another_host_gives_an_error_of_one_sentence() -> None:
    environment = {
        "PATH": os.environ["PATH"],
        "SLUICE_URL": "http://sluice.example",
        "ALL_PROXY": "socks5://127.0.0.1:9",
    }
    command = [sys.executable, "-m", "apps.client", "cancel", "x"]
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("Using SOCKS proxy")
    assert "Traceback" not in done.stderr


def test_make_targets_bypass_the_proxy_for_this_machine_only(tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text('#!/bin/sh\necho "$HTTP_PROXY|$NO_PROXY|$no_proxy"\n')
    python.chmod(0o755)
    for given in ({"NO_PROXY": "a.example"}, {"no_proxy": "a.example"}):
        environment = {"PATH": os.environ["PATH"], "HTTP_PROXY": NOBODY, **given}
        command = ["make", "-s", "-o", "install", "demo", f"BIN={tmp_path}"]
        done = subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60, check=True
        )
        direct = "localhost,127.0.0.1,::1,a.example"
        assert done.stdout.strip() == f"{NOBODY}|{direct}|{direct}"
