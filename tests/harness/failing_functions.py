"""Tables for tests: ways in which a task's function ends without a result, and calls of Celery's own API."""
# ruff: noqa: PLW0108 - the call must happen while the task runs, not when this module is imported

import asyncio
import json
import logging.config
import os
import signal
import sys
from collections.abc import Callable
from typing import Any, NamedTuple, NoReturn

import celery
from billiard import exceptions as billiard
from celery import exceptions, signature
from celery.result import AsyncResult, GroupResult
from pydantic import BaseModel, TypeAdapter

from apps.worker.limits import Cancelled
from tests.harness.simple_tasks import WORK_QUEUE, Output

OTHER = f"{WORK_QUEUE}:second"


class PanicException(BaseException):
    """An error that is not an Exception, as Rust code raises it through PyO3."""


class MuteError(Exception):
    """Raises when its text is read."""

    def __init__(self, error: BaseException) -> None:
        super().__init__()
        self.error = error

    def __str__(self) -> str:
        raise self.error

    __repr__ = __str__


class NumberError(Exception):
    """Its `__str__` returns a number."""

    def __str__(self) -> str:
        return 7  # type: ignore[return-value]  # noqa: PLE0307 - the wrong type is intended


class SecondClassError(Exception):
    """Exits when its `__class__` is read."""

    @property  # type: ignore[misc]
    def __class__(self) -> Any:
        sys.exit(4)


class ClosedError(Exception):
    """Exits when any of its attributes is read."""

    def __getattribute__(self, name: str) -> Any:
        raise SystemExit(name)


class _Nameless(type):
    @property
    def __name__(cls) -> str:  # type: ignore[override]
        raise KeyError("name")


class NamelessError(Exception, metaclass=_Nameless):
    """Its class raises when its `__name__` is read."""


class _OddText(str):
    __slots__ = ()

    def __len__(self) -> int:
        raise TypeError("len")

    isprintable = __getitem__ = __len__  # type: ignore[assignment]


class OddTextError(Exception):
    """Its text is of a subclass of `str` whose methods raise."""

    def __str__(self) -> str:
        return _OddText("odd")


class Other(BaseModel):
    """Has the fields of the declared output, but is another class."""

    name_task: str = "abc"
    state: str = "done"


class Ending(NamedTuple):
    """A function's action and the expected failure. A message of None: the library's own message, which varies."""

    do: Callable[[], Any]
    type: str
    message: str | None


def _raise(error: BaseException) -> Callable[[], NoReturn]:
    def end() -> NoReturn:
        raise error

    return end


def _exit(status: Any = None) -> Callable[[], NoReturn]:
    return lambda: sys.exit(status)


def _recurse() -> None:
    _recurse()


def _chained() -> None:
    try:
        _raise(KeyError("inner"))()
    except KeyError as exc:
        raise exceptions.Ignore("outer") from exc


def _nested() -> None:
    error: Exception = ValueError("leaf")
    for _ in range(5000):
        error = ExceptionGroup("two", [error])
    raise error


def _change_the_request() -> None:
    celery.current_task.request.update(id="other", publish_id="other", retries=None, chain=[{"task": "other"}])
    raise ValueError("mine")


def _fork() -> Any:
    """The child process returns into the caller like its parent, as code does that forgets to exit the child."""
    child = os.fork()
    if not child:
        return Output(name_task="child", state="done")
    raise ValueError(f"the child's status: {os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])}")


async def _cancelled() -> None:
    asyncio.get_running_loop().call_soon(asyncio.current_task().cancel)  # type: ignore[union-attr]
    await asyncio.sleep(60)


def _output(state: Any) -> Callable[[], Output]:
    return lambda: Output.model_construct(name_task="abc", state=state)


ENDINGS: dict[str, Ending] = {
    "ignore": Ending(_raise(exceptions.Ignore("not today")), "Ignore", "not today"),
    "ignore-empty": Ending(_raise(exceptions.Ignore()), "Ignore", ""),
    "ignore-chained": Ending(_chained, "Ignore", "outer"),
    "reject": Ending(_raise(exceptions.Reject("no good")), "Reject", "('no good', False)"),
    "reject-requeue": Ending(_raise(exceptions.Reject("no good", requeue=True)), "Reject", "('no good', True)"),
    "retry": Ending(_raise(exceptions.Retry("later")), "Retry", "later"),
    "retry-error": Ending(
        _raise(exceptions.Retry(exc=ConnectionError("gone"), when=1)), "Retry", "Retry in 1s: ConnectionError('gone')"
    ),
    "soft-limit": Ending(
        _raise(exceptions.SoftTimeLimitExceeded(5)), "SoftTimeLimitExceeded", "SoftTimeLimitExceeded(5,)"
    ),
    "hard-limit": Ending(_raise(exceptions.TimeLimitExceeded(5)), "TimeLimitExceeded", "TimeLimitExceeded(5,)"),
    "terminated": Ending(_raise(billiard.Terminated("me")), "Terminated", "me"),
    "worker-lost": Ending(_raise(exceptions.WorkerLostError("signal SIGALRM")), "WorkerLostError", "signal SIGALRM"),
    "max-retries": Ending(_raise(exceptions.MaxRetriesExceededError("enough")), "MaxRetriesExceededError", "enough"),
    "task-error": Ending(_raise(exceptions.TaskError("mine")), "TaskError", "mine"),
    "revoked": Ending(_raise(exceptions.TaskRevokedError("mine")), "TaskRevokedError", "mine"),
    "invalid-task": Ending(_raise(exceptions.InvalidTaskError("mine")), "InvalidTaskError", "mine"),
    "worker-terminate": Ending(_raise(exceptions.WorkerTerminate("now")), "WorkerTerminate", "now"),
    "worker-shutdown": Ending(_raise(exceptions.WorkerShutdown(0)), "WorkerShutdown", "0"),
    "system-terminate": Ending(_raise(exceptions.SystemTerminate(1)), "WorkerTerminate", "1"),
    "cancelled": Ending(_raise(Cancelled("by hand")), "Cancelled", "by hand"),
    "exit-text": Ending(_exit("error: bad arguments"), "SystemExit", "error: bad arguments"),
    "exit-number": Ending(_exit(3), "SystemExit", "3"),
    "exit-zero": Ending(_exit(0), "SystemExit", "0"),
    "exit-none": Ending(_exit(), "SystemExit", ""),
    "keyboard": Ending(_raise(KeyboardInterrupt("me")), "KeyboardInterrupt", "me"),
    "generator": Ending(_raise(GeneratorExit("me")), "GeneratorExit", "me"),
    "asyncio-cancelled": Ending(_raise(asyncio.CancelledError("me")), "CancelledError", "me"),
    "asyncio-run": Ending(lambda: asyncio.run(_cancelled()), "CancelledError", ""),
    "stop-iteration": Ending(_raise(StopIteration("end")), "StopIteration", "end"),
    "panic": Ending(_raise(PanicException("index out of bounds")), "PanicException", "index out of bounds"),
    "group": Ending(
        _raise(ExceptionGroup("two", [ValueError("a"), OSError("b")])), "ExceptionGroup", "two (2 sub-exceptions)"
    ),
    "base-group": Ending(
        _raise(BaseExceptionGroup("two", [SystemExit(1), Cancelled()])), "BaseExceptionGroup", "two (2 sub-exceptions)"
    ),
    "memory": Ending(_raise(MemoryError("no more")), "MemoryError", "no more"),
    "recursion": Ending(_recurse, "RecursionError", "maximum recursion depth exceeded"),
    "operational": Ending(_raise(exceptions.OperationalError("not ours")), "OperationalError", "not ours"),
    "mute": Ending(
        _raise(MuteError(ValueError("never"))),
        "MuteError",
        "its message cannot be read: ValueError in MuteError.__str__",
    ),
    "mute-exit": Ending(
        _raise(MuteError(SystemExit(4))), "MuteError", "its message cannot be read: SystemExit in MuteError.__str__"
    ),
    "number": Ending(
        _raise(NumberError()), "NumberError", "its message cannot be read: TypeError in NumberError.__str__"
    ),
    "class": Ending(_raise(SecondClassError("mine")), "SecondClassError", "mine"),
    "closed": Ending(_raise(ClosedError("mine")), "ClosedError", "mine"),
    "nameless": Ending(_raise(NamelessError("mine")), "NamelessError", "mine"),
    "odd-text": Ending(_raise(OddTextError()), "OddTextError", "odd"),
    "group-nested": Ending(_nested, "ExceptionGroup", "two (1 sub-exception)"),
    "request-changed": Ending(_change_the_request, "ValueError", "mine"),
    "forked": Ending(_fork, "ValueError", f"the child's status: {os.EX_SOFTWARE}"),
    "result-none": Ending(lambda: None, "ValidationError", None),
    "result-other": Ending(Other, "ValidationError", None),
    "result-text": Ending(lambda: "done", "ValidationError", None),
    "result-class": Ending(lambda: Output, "ValidationError", None),
    "result-unencodable": Ending(_output(object()), "PydanticSerializationError", None),
    "result-raising": Ending(_output(TypeAdapter(Any)), "PydanticSerializationError", None),
}
"""Each action must be recorded as FAILURE."""


def _no_json(*_: object, **__: object) -> NoReturn:
    raise RuntimeError("not the json that it was")


def _replace_json() -> NoReturn:
    json.dumps = json.loads = _no_json
    raise ValueError("mine")


def _lower_recursion_limit() -> NoReturn:
    depth, frame = 0, sys._getframe()  # noqa: SLF001 - counts the frames, to find the lowest limit that Python allows
    while frame := frame.f_back:  # type: ignore[assignment]
        depth += 1
    sys.setrecursionlimit(depth + 20)  # 20 more: calls from C count too, and have no frame
    raise ValueError("mine")


def _replace_logging() -> NoReturn:
    logging.config.dictConfig({"version": 1, "root": {"handlers": []}})
    logging.disable()
    raise ValueError("mine")


def _break_logging() -> NoReturn:
    for handler in logging.root.handlers:
        handler.addFilter(_no_json)
    raise ValueError("mine")


def _close_stderr() -> NoReturn:
    sys.stderr.close()
    raise ValueError("mine")


CHANGES: dict[str, Callable[[], NoReturn]] = {
    "recursion limit": _lower_recursion_limit,
    "logging replaced": _replace_logging,
    "logging broken": _break_logging,
    "stderr closed": _close_stderr,
    "json": _replace_json,
}
"""Each function changes its process and raises ValueError("mine")."""


DEATHS: dict[str, Callable[[], Any]] = {
    "alarm": lambda: signal.raise_signal(signal.SIGALRM),
    "status": lambda: os._exit(7),
}
"""Each function ends its process."""


def _other(**options: Any) -> Any:
    return signature(OTHER, args=[{"task": "second", "name": "abc"}], app=celery.current_app, **options)


def _task() -> Any:
    return celery.current_app.tasks[OTHER]


def _in_a_thread(do: Callable[[], Any]) -> Any:
    from concurrent.futures import ThreadPoolExecutor  # noqa: PLC0415 - only this call needs it

    with ThreadPoolExecutor(1) as threads:
        return threads.submit(do).result()


CALLS: dict[str, Callable[[], Any]] = {
    "send_task": lambda: celery.current_app.send_task(OTHER, args=[{}]),
    "send_task-unknown": lambda: celery.current_app.send_task("their:task", queue="theirs"),
    "send_task-thread": lambda: _in_a_thread(lambda: celery.current_app.send_task(OTHER)),
    "apply_async": lambda: _task().apply_async(args=[{}], countdown=3),
    "delay": lambda: _task().delay({}),
    "apply": lambda: _task().apply(args=[{}]),
    "direct": lambda: _task()({"task": "second", "name": "abc"}),
    "run": lambda: _task().run({"task": "second", "name": "abc"}),
    "own-run": lambda: celery.current_task.run({"task": "call", "name": "abc", "how": "own-run"}),
    "own-direct": lambda: celery.current_task({"task": "call", "name": "abc", "how": "own-run"}),
    "shared_task": lambda: celery.shared_task(_in_a_thread, name="their.shared").delay(),
    "signature": lambda: _other()(),
    "signature-delay": lambda: _other().delay(),
    "signature-apply_async": lambda: _other().apply_async(),
    "signature-unknown": lambda: signature("their.task").apply_async(),
    "chain": lambda: celery.chain(_other(), _other())(),
    "chain-apply_async": lambda: celery.chain(_other(), _other()).apply_async(),
    "pipe": lambda: (_other() | _other()).delay(),
    "group": lambda: celery.group(_other(), _other())(),
    "group-apply_async": lambda: celery.group(_other(), _other()).apply_async(),
    "chord": lambda: celery.chord([_other(), _other()])(_other()),
    "chord-apply_async": lambda: celery.chord([_other(), _other()], _other()).apply_async(),
    "chunks": lambda: _task().chunks([({},)], 1).apply_async(),
    "map": lambda: _task().map([{}]).apply_async(),
    "replace": lambda: celery.current_task.replace(_other()),
    "retry": lambda: celery.current_task.retry(countdown=1),
    "retry-error": lambda: celery.current_task.retry(exc=ConnectionError("gone")),
    "update_state": lambda: celery.current_task.update_state(state="SUCCESS", meta={}),
    "backend": lambda: celery.current_app.backend.store_result("x", 1, "SUCCESS"),
    "result-get": lambda: AsyncResult("x").get(timeout=5),
    "result-state": lambda: AsyncResult("x").state,
    "result-ready": lambda: celery.current_app.AsyncResult("x").ready(),
    "result-forget": lambda: AsyncResult("x").forget(),
    "group-result": lambda: GroupResult.restore("x"),
    "control": lambda: celery.current_app.control.revoke("x"),
}
