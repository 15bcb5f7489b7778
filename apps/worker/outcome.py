"""An error in a task as what is recorded and logged of it. The only place where an exception becomes text.

An error's class is a team's own code. `isinstance`, `error.attribute` and `type(error).__name__` may call it, and it
may raise anything there; `is_a` and `_type_name` ask the interpreter instead.
"""

import traceback

from billiard.common import terminate_handler_fired

from apps.contract import states


def failure_of(exc: BaseException, max_chars: int = states.FAILURE_MESSAGE_MAX_CHARS) -> dict[str, str]:
    """The result of a task that ended by this error: the error's own type and message."""
    return states.failure(_type_name(exc), _message(exc), max_chars)


def is_a(exc: BaseException, types: type[BaseException] | tuple[type[BaseException], ...]) -> bool:
    """Whether the error was raised as one of these types, whatever its `__class__` says."""
    return issubclass(type(exc), types)


def traceback_of(exc: BaseException, *, chain: bool = True) -> str:
    """The traceback as Python prints it, for one field of a log line."""
    try:
        return "".join(traceback.format_exception(exc, chain=chain))
    except BaseException as inner:  # what it prints is a task's own, and may raise anything
        if terminate_handler_fired():  # this process is being ended from outside
            raise
        frames = "".join(traceback.format_tb(BaseException.__dict__["__traceback__"].__get__(exc)))
        reason = f"the rest cannot be printed: {_type_name(inner)}"
        return f"Traceback (most recent call last):\n{frames}{_type_name(exc)}: {_message(exc)}\n({reason})"


def _message(exc: BaseException) -> str:
    try:
        return "".join((str(exc),))  # `str` may return a subclass; this is a plain string
    except BaseException as inner:  # a `__str__` of a team's own may raise anything, sys.exit() too
        if terminate_handler_fired():  # this process is being ended from outside
            raise
        return f"its message cannot be read: {_type_name(inner)} in {_type_name(exc)}.__str__"


def _type_name(exc: BaseException) -> str:
    """The name of the error's class, past a property of its metaclass."""
    return str(type.__dict__["__name__"].__get__(type(exc)))
