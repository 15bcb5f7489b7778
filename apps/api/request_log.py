"""Middleware for every request: its id, its trace context, and its log line."""

import asyncio
import json
import logging
import os
import re
import sys
import time
from contextlib import suppress
from functools import lru_cache

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from apps import logs
from apps.api import errors
from apps.contract.ids import random_hex
from apps.contract.text import clean

log = logging.getLogger(__name__)

REQUEST_ID_FORM = re.compile(rb"[A-Za-z0-9._:-]{1,128}")
# W3C Trace Context, version 00; ids that consist of zeros are invalid
TRACEPARENT_FORM = re.compile(rb"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
# A killed process loses the lines of this interval.
WRITE_INTERVAL_S = 0.02
# Lines per write: 16 MiB at most.
LINES_MAX = 1000
# With four bytes per character, a line stays within `logs.LINE_MAX_BYTES`.
PATH_MAX_CHARS = 2000
# Not logged: probes would be most of the log.
SILENT_PATHS = frozenset({"/livez", "/readyz", "/healthz", "/metrics"})


class RequestLog:
    """Assigns an id to every request, the client's if it is valid, and logs the end of the request."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = _given(scope, b"x-request-id", REQUEST_ID_FORM) or random_hex()
        logs.request_id.set(request_id)
        logs.traceparent.set(_given(scope, b"traceparent", TRACEPARENT_FORM))
        logs.task_id.set(None)
        started_s = time.perf_counter()
        status = 0  # logged if the client disconnects before the answer

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], (b"x-request-id", request_id.encode())]
            await send(message)

        try:
            await self._app(scope, receive, send_with_id)
        except ClientDisconnect:
            pass  # while its body was read, or during the answer: only the log line remains
        except Exception:
            log.exception("unhandled")
            if status:  # the answer has begun: it can only be aborted
                raise
            await errors.response(errors.defect())(scope, receive, send_with_id)
        finally:
            if log.isEnabledFor(logging.INFO) and scope["path"] not in SILENT_PATHS:
                _lines.add(scope["method"], scope["path"], status, time.perf_counter() - started_s)


def _given(scope: Scope, name: bytes, form: re.Pattern[bytes]) -> str | None:
    """The first value of a header, or None if it does not have this form."""
    for key, value in scope["headers"]:
        if key == name:
            return value.decode() if form.fullmatch(value) else None
    return None


class _Lines:
    """Log lines of requests; writes those of WRITE_INTERVAL_S at once.

    The format is that of `logs.JsonFormatter`, with which a test compares it: with `logging`, a line would take as much
    time as the rest of a post.
    """

    def __init__(self) -> None:
        self._unwritten: list[str] = []
        self._timer: asyncio.TimerHandle | None = None

    def add(self, method: str, path: str, status: int, took_s: float) -> None:
        time_s, pid = _moment(int(time.time() * 1000))
        task_id = logs.task_id.get()
        about = f', "task_id": "{task_id}"' if task_id else ""
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(WRITE_INTERVAL_S, self.write)
        self._unwritten.append(
            f'{{"time": "{time_s}", "level": "INFO", "logger": "{__name__}", '
            f'"message": "request", "pid": {pid}, "request_id": "{logs.request_id.get()}"{about}, '
            f'"method": "{method}", "path": {_path(path)}, "status": {status}, "ms": {took_s * 1000:.1f}}}\n'
        )
        if len(self._unwritten) >= LINES_MAX:
            self.write()

    def write(self) -> None:
        """Write all pending lines."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        lines, self._unwritten = self._unwritten, []
        with suppress(OSError):  # like `logging`: a full disk only loses lines
            sys.stderr.write("".join(lines))
            sys.stderr.flush()


_lines = _Lines()
flush = _lines.write
_quoted = json.JSONEncoder(ensure_ascii=False).encode


@lru_cache(maxsize=2)
def _moment(since_epoch_ms: int) -> tuple[str, int]:
    """The time and the process id, cached per millisecond: getpid() is a system call."""
    return logs.time_text(since_epoch_ms), os.getpid()


@lru_cache(maxsize=16)
def _path(path: str) -> str:
    """A path as JSON. Cached, as all posts have the same path."""
    return _quoted(clean(path, PATH_MAX_CHARS))
