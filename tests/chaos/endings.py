"""How the tasks end that end oddly, each once: what they raise or return, and what a client is to be told of it."""

from collections.abc import Callable

from celery.exceptions import Ignore, Reject, Retry, TaskRevokedError

from apps.contract import states

MIB = 1024 * 1024


class Panic(BaseException):
    """No Exception, as what Rust code raises through PyO3."""


# Each by the name of its task, made of the post's name.
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
    "large": lambda name: name * 20_000,  # about 100 KB, and 500 KB: the API reads the two on different connections
    "larger": lambda name: name * 100_000,
    "filling": lambda name: name * 150_000,
}
TOO_LARGE = "too_large"
ODD_ENDS = (*RAISED, *RETURNED, TOO_LARGE)
# They never end: one swallows what is raised in it, the other starts processes as well.
ENDLESS = ("swallow", "spawn")


def too_large(name: str) -> str:
    """A text above the limit of results."""
    return name.ljust(2 * MIB, "x")


def failure_is_right(task: str, name: str, type_: object, message: str) -> bool:
    """Whether this is the FAILURE of a task of this kind."""
    if task == TOO_LARGE:
        return type_ == "ResultTooLarge" and str(MIB) in message
    error = RAISED[task](name)
    return states.failure(type(error).__name__, str(error)) == {"type": type_, "message": message}


def data_is_right(task: str, name: str, data: object) -> bool:
    """Whether this is what a SUCCESS of a task of this kind has returned."""
    return data == RETURNED[task](name).replace("\udce9", r"\udce9")
