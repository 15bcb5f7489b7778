"""Tasks with unusual ends, one per kind: the raised error or returned value, and the expected answer to clients."""

from collections.abc import Callable

from celery.exceptions import Ignore, Reject, Retry, TaskRevokedError

from apps.contract import states

MIB = 1024 * 1024


class Panic(BaseException):
    """An error that is not an Exception, as Rust code raises it through PyO3."""


# Name of the task -> its error, made from the post's name.
RAISED: dict[str, Callable[[str], BaseException]] = {
    "ignore": Ignore,
    "reject": lambda name: Reject(name, requeue=True),
    "retry": Retry,
    "revoked": TaskRevokedError,
    "exit": SystemExit,
    "interrupt": KeyboardInterrupt,
    "panic": Panic,
    "unreadable": lambda name: ValueError(f"{name}\udce9\x00.mp4"),
    "endless": lambda name: ValueError(name + "x" * 2 * MIB),
}
RETURNED: dict[str, Callable[[str], str]] = {
    "odd": lambda name: f"{name}\udce9.mp4",
    "large": lambda name: name * 20_000,  # 100 and 500 KB: the API reads them over different connections
    "larger": lambda name: name * 100_000,
    "filling": lambda name: name * 150_000,
}
TOO_LARGE = "too_large"
ODD_ENDS = (*RAISED, *RETURNED, TOO_LARGE)
# These never end: the first swallows every exception, the second also starts processes.
ENDLESS = ("swallow", "spawn")


def too_large(name: str) -> str:
    """Return a text above the limit on results."""
    return name.ljust(2 * MIB, "x")


def failure_is_right(task: str, name: str, type_: object, message: str) -> bool:
    """Return whether this is the FAILURE of this kind of task."""
    if task == TOO_LARGE:
        return type_ == "ResultTooLarge" and str(MIB) in message
    error = RAISED[task](name)
    return states.failure(type(error).__name__, str(error)) == {"type": type_, "message": message}


def data_is_right(task: str, name: str, data: object) -> bool:
    """Return whether this is the data of a SUCCESS of this kind of task."""
    return data == RETURNED[task](name).replace("\udce9", r"\udce9")
