"""Converts exceptions of tasks to text for records and logs. No other module may do so.

An exception's class may run its own code in `isinstance`, `error.attribute` and `type(error).__name__`, and this code
may raise anything. `is_a` and `_type_name` use the interpreter's own attributes instead.
"""

import traceback

from billiard.common import terminate_handler_fired

from apps.contract import states


def failure_of(exc: BaseException, max_chars: int = states.FAILURE_MESSAGE_MAX_CHARS) -> dict[str, str]:
    """The result of a task that raised this exception: its type and message."""
    return states.failure(_type_name(exc), _message(exc), max_chars)


def is_a(exc: BaseException, types: type[BaseException] | tuple[type[BaseException], ...]) -> bool:
    """Whether the exception's real type is one of these types, whatever its `__class__` returns."""
    return issubclass(type(exc), types)


def traceback_of(exc: BaseException, *, chain: bool = True) -> str:
    """The traceback as Python prints it, for one field of a log line."""
    try:
        return "".join(traceback.format_exception(exc, chain=chain))
    except BaseException as inner:  # formatting runs code of the task, which may raise anything
        if terminate_handler_fired():  # this process is being ended from outside
            raise
        frames = "".join(traceback.format_tb(BaseException.__dict__["__traceback__"].__get__(exc)))
        reason = f"the rest cannot be printed: {_type_name(inner)}"
        return f"Traceback (most recent call last):\n{frames}{_type_name(exc)}: {_message(exc)}\n({reason})"


def _message(exc: BaseException) -> str:
    try:
        return "".join((str(exc),))  # `str` may return a subclass; this is a plain string
    except BaseException as inner:  # a custom `__str__` may raise anything, including SystemExit
        if terminate_handler_fired():  # this process is being ended from outside
            raise
        return f"its message cannot be read: {_type_name(inner)} in {_type_name(exc)}.__str__"


def _type_name(exc: BaseException) -> str:
    """The class name of the exception, even if its metaclass overrides `__name__`."""
    return str(type.__dict__["__name__"].__get__(type(exc)))
