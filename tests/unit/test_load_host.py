"""An address is checked before it is loaded."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread
from typing import Any

import pytest

from loadtest import host
from ops.command import Unusable
from ops.servers.ports import free_ports

TIMEOUT_S = 2.0


@contextmanager
def serving(status: int, body: str) -> Iterator[str]:
    """Run a server that answers each request with this status and body."""

    class Same(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, *_: Any) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Same) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def problem(kind: str) -> str:
    return json.dumps({"type": f"urn:sluice:problem:{kind}"})


def test_address_of_sluice_is_accepted() -> None:
    with serving(404, problem("not-found")) as url:
        host.check(url, "a-key")


@pytest.mark.parametrize(
    ("name", "value"), [("HTTP_PROXY", "http://127.0.0.1:9"), ("ALL_PROXY", "socks5://127.0.0.1:9")]
)
def test_this_machine_is_contacted_without_a_proxy(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.delenv("NO_PROXY")
    monkeypatch.delenv("no_proxy")
    monkeypatch.setenv(name, value)
    with serving(404, problem("not-found")) as url:
        host.check(url, "a-key")


@pytest.mark.parametrize(
    ("status", "body", "sentence"),
    [
        (401, problem("unauthenticated"), "answers 401: set SLUICE_KEY to a valid bearer key"),
        (404, "<h1>not here</h1>", "answers 404 for an unknown task, where Sluice answers 404 not-found"),
        (200, "<h1>Welcome</h1>", "does not answer as Sluice does"),
        (200, '{"task_id": "1", "task_status": "SUCCESS"}', "answers with success for a task that does not exist"),
        (503, problem("refused"), "has answered 503 for 2 s: check that the system behind it runs."),
    ],
)
def test_other_answer_is_named_in_the_error(
    monkeypatch: pytest.MonkeyPatch, status: int, body: str, sentence: str
) -> None:
    monkeypatch.setattr(host, "ANSWER_TIMEOUT_S", TIMEOUT_S)
    with serving(status, body) as url, pytest.raises(Unusable) as caught:
        host.check(url, "a-key")
    assert str(caught.value).startswith(url)
    assert sentence in str(caught.value)


def test_refused_connection_is_named_in_the_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "ANSWER_TIMEOUT_S", TIMEOUT_S)
    (port,) = free_ports(1)
    with pytest.raises(Unusable, match=rf"^http://127\.0\.0\.1:{port} does not answer"):
        host.check(f"http://127.0.0.1:{port}", "")
