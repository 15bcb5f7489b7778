"""An error in a task as what is recorded and logged of it. The only place where an exception becomes text."""

import traceback

from billiard.common import terminate_handler_fired

from apps.contract import states


def failure_of(exc: BaseException, max_chars: int = states.FAILURE_MESSAGE_MAX_CHARS) -> dict[str, str]:
    """The result of a task that ended by this error: the error's own type and message."""
    return states.failure(type(exc).__name__, _message(exc), max_chars)


def traceback_of(exc: BaseException, *, chain: bool = True) -> str:
    """The traceback as Python prints it, for one field of a log line."""
    try:
        return "".join(traceback.format_exception(exc, chain=chain))
    except Exception as inner:  # noqa: BLE001 - what it prints is a task's own, and may raise anything
        return f"{type(exc).__name__}; its traceback cannot be printed: {type(inner).__name__}"


def _message(exc: BaseException) -> str:
    try:
        return str(exc)
    except BaseException as inner:  # a `__str__` of a team's own may raise anything, sys.exit() too
        if terminate_handler_fired():  # this process is being ended from outside
            raise
        return f"its message cannot be read: {type(inner).__name__} in {type(exc).__name__}.__str__"
