"""All clients of NGINX send the host of the Ingress in the Host header, even if the URL contains an IP address."""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from uuid import uuid4

import pytest

from apps.client import AsyncClient, Client, Problem
from loadtest import host as addresses
from ops import cluster
from ops.command import ROOT, Unusable

HOST = "tasks.example.com"
TIMEOUT_S = 5.0


class OneHost(BaseHTTPRequestHandler):
    """Answers like NGINX with one Ingress: the API's answer for its host, and NGINX's own page for any other host."""

    def do_GET(self) -> None:
        kind = "not-found" if self.headers["Host"] == HOST else "no-such-host"
        self.send_response(404)
        self.end_headers()
        self.wfile.write(json.dumps({"type": f"urn:sluice:problem:{kind}", "detail": kind}).encode())

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def address() -> Iterator[str]:
    with HTTPServer(("127.0.0.1", 0), OneHost) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_client_sends_the_host(address: str) -> None:
    with Client(address, "a-key", host=HOST) as client, pytest.raises(Problem) as caught:
        client.result(str(uuid4()), TIMEOUT_S)
    assert caught.value.kind == "not-found"


def test_async_client_sends_the_host(address: str) -> None:
    async def ask() -> None:
        async with AsyncClient(address, "a-key", host=HOST) as client:
            await client.result(str(uuid4()), TIMEOUT_S)

    with pytest.raises(Problem) as caught:
        asyncio.run(ask())
    assert caught.value.kind == "not-found"


def test_command_sends_the_host(address: str) -> None:
    environment = {"PATH": os.environ["PATH"], "SLUICE_URL": address, "SLUICE_HOST": HOST}
    line = [sys.executable, "-m", "apps.client", "follow", str(uuid4())]
    done = subprocess.run(line, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert "not-found" in done.stderr


def test_load_test_finds_sluice_only_with_the_host(address: str) -> None:
    addresses.check(address, "a-key", HOST)
    with pytest.raises(Unusable, match="check the address"):
        addresses.check(address, "a-key")


@pytest.mark.parametrize(
    ("rule", "host"), [({"host": "localhost"}, "localhost"), ({"host": "*.example.com"}, "any.example.com"), ({}, "")]
)
def test_host_is_read_from_the_ingress(
    rule: dict[str, str], host: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "ingress").write_text(json.dumps({"spec": {"rules": [rule]}}))
    kubectl = tmp_path / "kubectl"
    kubectl.write_text(f'#!/bin/sh\ntest "$1 $2 $3" = "get ingress api" && cat {tmp_path}/ingress\n')
    kubectl.chmod(0o755)
    monkeypatch.setattr(cluster, "kubectl", lambda: kubectl)
    assert cluster.ingress_host() == host
