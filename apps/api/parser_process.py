"""The process that parses heavy bodies: a fork of the API, and so with the same models, connected by a socket.

    request: kind, bytes of the request id, bytes of the body | request id | body
    answer:  size | JSON: [problem of the body or null, list of inputs]; an input is [task, text] or a problem, and a
             problem is [status, kind, detail, members]

The process ends when the socket is closed, and so with the API, however that ends. A kernel timer kills it if a body
takes too much CPU time, even in code that no exception can interrupt.
"""

import asyncio
import os
import signal
import socket
import struct
import warnings
from typing import Any, Self

from pydantic_core import from_json, to_json

from apps import logs
from apps.api import errors
from apps.api.body import BATCH_LEVELS, DEPTH_MAX, batch_model, parse_batch, parse_input, require_bounded
from apps.contract.message import Payload
from apps.contract.tasks import Registry, input_adapter

Parsed = Payload | errors.Problem

# With a plain model, a body of VALUES_MAX values is validated in 0.04 s, or refused in 0.1 s; with a union of five
# types in 0.9 s. The rest is for custom validators.
CPU_MAX_S = 2.0
INPUT, BATCH = 0, 1
_REQUEST = struct.Struct(">BII")
_ANSWER = struct.Struct(">I")
_FIRST_OWN_FD = 3  # after stdin, stdout and stderr


class ParserProcess:
    """The process, in its parent."""

    def __init__(self, pid: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._pid = pid
        self._reader = reader
        self._writer = writer
        self._signal: int | None = None

    @classmethod
    async def start(cls, registry: Registry) -> Self:
        """Fork the process. This blocks the event loop for a few milliseconds."""
        ours, theirs = socket.socketpair()
        with warnings.catch_warnings():
            # Python 3.12 and later warn about a fork with threads. Our threads hold no lock that the child needs.
            warnings.simplefilter("ignore", DeprecationWarning)
            pid = os.fork()
        if pid == 0:
            _run(theirs, registry)
        theirs.close()
        try:
            return cls(pid, *await asyncio.open_connection(sock=ours))
        except BaseException:  # cancelled
            ours.close()
            _end(pid)
            raise

    async def ask(self, kind: int, body: bytes) -> bytes:
        """Send a body, and return the answer. Raises OSError or EOFError if the process has ended."""
        request_id = (logs.request_id.get() or "").encode()
        self._writer.write(_REQUEST.pack(kind, len(request_id), len(body)) + request_id + body)
        await self._writer.drain()
        (size,) = _ANSWER.unpack(await self._reader.readexactly(_ANSWER.size))
        return await self._reader.readexactly(size)

    def end(self) -> int:
        """Kill the process; returns the signal that ended it."""
        if self._signal is None:
            self._signal = _end(self._pid)
            self._writer.transport.abort()
        return self._signal


def _end(pid: int) -> int:
    """Kill a child; returns the signal that ended it."""
    os.kill(pid, signal.SIGKILL)  # harmless if it has ended: its pid is not reused before waitpid
    return os.WTERMSIG(os.waitpid(pid, 0)[1])


def inputs(answer: bytes) -> list[Parsed]:
    """The inputs in an answer, with a problem for each invalid input. Raises the problem of the body."""
    whole, parsed = from_json(answer)
    if whole is not None:
        raise _problem(whole)
    return [Payload(*one) if isinstance(one[0], str) else _problem(one) for one in parsed]


def _problem(one: list[Any]) -> errors.Problem:
    status, kind, detail, members = one
    return errors.Problem(status, kind, detail, **members)


# In the child


def _run(connection: socket.socket, registry: Registry) -> None:
    """Serve until the socket is closed; never returns."""
    code = os.EX_SOFTWARE
    try:
        _leave_parent(connection.fileno())
        _Child(connection, registry).serve()
        code = os.EX_OK
    finally:
        os._exit(code)


def _leave_parent(own_fd: int) -> None:
    """Reset the API's signal handlers, and close its connections."""
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGINT, signal.SIGTERM):  # may be sent to the process group; the child ends with the socket
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    os.closerange(_FIRST_OWN_FD, own_fd)
    os.closerange(own_fd + 1, os.sysconf("SC_OPEN_MAX"))


class _Child:
    def __init__(self, connection: socket.socket, registry: Registry) -> None:
        self._connection = connection
        self._file = connection.makefile("rb")
        self._inputs = input_adapter(registry)
        self._batch = batch_model(registry)

    def serve(self) -> None:
        while head := self._file.read(_REQUEST.size):
            kind, id_bytes, body_bytes = _REQUEST.unpack(head)
            logs.request_id.set(self._file.read(id_bytes).decode() or None)
            body = self._file.read(body_bytes)
            signal.setitimer(signal.ITIMER_PROF, CPU_MAX_S)
            answer = self._answer(kind, body)
            signal.setitimer(signal.ITIMER_PROF, 0)
            self._connection.sendall(_ANSWER.pack(len(answer)) + answer)

    def _answer(self, kind: int, body: bytes) -> bytes:
        try:
            if kind == INPUT:
                require_bounded(body, DEPTH_MAX)
                parsed: list[Parsed] = [parse_input(self._inputs, body)]
            else:
                require_bounded(body, DEPTH_MAX + BATCH_LEVELS)
                parsed = parse_batch(self._batch, self._inputs, body)
        except errors.Problem as problem:
            return to_json([_parts(problem), None])
        return to_json([None, [_parts(one) if isinstance(one, errors.Problem) else one for one in parsed]])


def _parts(problem: errors.Problem) -> list[Any]:
    return [problem.status, problem.kind, problem.detail, problem.members]
