"""The log line of a request, and its request id and trace context."""

import json
import logging
from collections.abc import Iterator

import pytest
from starlette.requests import Request
from starlette.types import Message, Receive, Scope, Send

from apps import logs
from apps.api.request_log import RequestLog, flush
from tests.harness.fake_broker import until

pytestmark = pytest.mark.anyio

TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


async def request(path: str = "/a", task_id: str | None = None, **headers: str) -> tuple[list[Message], dict[str, str]]:
    """Send a request through RequestLog; returns the answer, and the ids that the app saw."""
    sent: list[Message] = []
    seen: dict[str, str] = {}

    async def app(_: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG001 - ASGI's signature
        seen.update(request_id=logs.request_id.get() or "", traceparent=logs.traceparent.get() or "")
        logs.task_id.set(task_id)
        await send({"type": "http.response.start", "status": 202, "headers": [(b"a", b"b")]})
        await send({"type": "http.response.body"})

    async def receive() -> Message:
        return {"type": "http.request"}

    async def send(message: Message) -> None:
        sent.append(message)

    raw = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    await RequestLog(app)({"type": "http", "method": "POST", "path": path, "headers": raw}, receive, send)
    return sent, seen


@pytest.fixture(autouse=True)
def written() -> Iterator[None]:
    """Flush lines of other tests, and the timer of an earlier event loop."""
    flush()
    yield
    flush()


@pytest.fixture
def info(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)


async def line(capsys: pytest.CaptureFixture[str]) -> str:
    found: list[str] = []

    def written() -> bool:
        found.extend(capsys.readouterr().err.split("\n")[:-1])
        return bool(found)

    await until(written)
    return found[0]


@pytest.mark.usefixtures("info")
async def test_line_equals_that_of_the_json_formatter(capsys: pytest.CaptureFixture[str]) -> None:
    await request('/a"\\\n\u2028ł', task_id="an-id", x_request_id="mine")
    written = json.loads(await line(capsys))
    record = logging.LogRecord("apps.api.request_log", logging.INFO, "", 0, "request", (), None)
    record.fields = {"method": "POST", "path": '/a"\\\n\u2028ł', "status": 202, "ms": written["ms"]}
    logs.request_id.set("mine")
    logs.task_id.set("an-id")
    formatted = json.loads(logs.JsonFormatter().format(record))
    assert list(written) == list(formatted)
    assert written | {"time": 0} == formatted | {"time": 0}
    assert len(written["time"]) == len(formatted["time"])
    assert written["ms"] >= 0


@pytest.mark.usefixtures("info")
async def test_long_path_is_truncated(capsys: pytest.CaptureFixture[str]) -> None:
    await request("/" + "\U0001f600\udce9" * 100_000)
    written = await line(capsys)
    assert len(written.encode()) < logs.LINE_MAX_BYTES
    assert json.loads(written)["path"].startswith("/\U0001f600\\udce9")


@pytest.mark.usefixtures("info")
async def test_disconnected_client_is_logged_without_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    async def app(_: Scope, receive: Receive, send: Send) -> None:
        await Request({"type": "http"}, receive, send).body()

    async def receive() -> Message:
        return {"type": "http.disconnect"}

    async def send(_: Message) -> None:
        raise AssertionError

    await RequestLog(app)({"type": "http", "method": "POST", "path": "/a", "headers": []}, receive, send)
    written = json.loads(await line(capsys))
    assert (written["level"], written["message"], written["status"]) == ("INFO", "request", 0)


@pytest.mark.usefixtures("info")
async def test_probes_are_not_logged(capsys: pytest.CaptureFixture[str]) -> None:
    await request("/livez")
    await request("/seen")
    assert json.loads(await line(capsys))["path"] == "/seen"


async def test_nothing_is_logged_below_the_log_level(
    capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    await request("/unseen")
    caplog.set_level(logging.INFO)
    await request("/seen")
    assert json.loads(await line(capsys))["path"] == "/seen"


async def test_request_id_and_trace_of_the_client_are_used() -> None:
    sent, seen = await request(x_request_id="mine-1", traceparent=TRACEPARENT)
    assert seen == {"request_id": "mine-1", "traceparent": TRACEPARENT}
    assert sent[0]["headers"] == [(b"a", b"b"), (b"x-request-id", b"mine-1")]


@pytest.mark.parametrize("unfit", ["a b", "", "a" * 129, "a\n", "ł"])
async def test_malformed_request_id_is_replaced(unfit: str) -> None:
    _, one = await request(x_request_id=unfit)
    _, two = await request()
    assert len(one["request_id"]) == len(two["request_id"]) == 32
    assert one != two


@pytest.mark.parametrize(
    "unfit",
    [
        f"00-{'0' * 32}-{'1' * 16}-01",
        f"00-{'1' * 32}-{'0' * 16}-01",
        "",
        TRACEPARENT.upper(),
        TRACEPARENT[:-1],
        f"{TRACEPARENT}-x",
        "01" + TRACEPARENT[2:],
    ],
)
async def test_malformed_trace_is_ignored(unfit: str) -> None:
    assert (await request(traceparent=unfit))[1]["traceparent"] == ""


@pytest.mark.usefixtures("info")
async def test_lines_that_cannot_be_written_are_dropped(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(_: str) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("sys.stderr.write", full)
        await request("/lost")
        flush()
    await request("/seen")
    assert json.loads(await line(capsys))["path"] == "/seen"
