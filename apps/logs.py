"""JSON logs: one object a line of bounded length, with the request id and the task id wherever there is one."""

import json
import logging
import reprlib
from collections.abc import Sized
from contextlib import suppress
from contextvars import ContextVar
from datetime import UTC, datetime
from functools import lru_cache
from itertools import islice
from types import NoneType
from typing import Any

from pydantic_core import to_json

from apps.contract.text import clean, clean_all

# Of a line, its line break included: containerd and Docker cut longer ones at 16 KiB, and what is cut is no JSON.
LINE_MAX_BYTES = 16 * 1024
# Of each text in a line. Head and tail are kept: of a traceback, where it began and what was raised last. A line with
# several long texts, or with text of several bytes a character, has less of each.
TEXT_MAX_CHARS = 8000
TEXT_MIN_CHARS = 100
# Of these there is room in any line: the message and its ids are among them.
FIELDS_MIN = 7
# A longer list is shown by its first few items: to encode it would take longer than to log it is worth.
ITEMS_MAX = 100

request_id: ContextVar[str | None] = ContextVar("request_id", default=None)
traceparent: ContextVar[str | None] = ContextVar("traceparent", default=None)
task_id: ContextVar[str | None] = ContextVar("task_id", default=None)


class JsonFormatter(logging.Formatter):
    """Formats a record as one JSON object; what is passed as `extra={"fields": {...}}` is added to it.

    Whatever a record has in it, there is a line of at most LINE_MAX_BYTES: no text is too long or too odd to be logged.
    """

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": f"{second_text(int(record.created))}.{int(record.created % 1 * 1000):03}+00:00",
            "level": record.levelname,
            "logger": record.name,
            "message": _message(record),
            "pid": record.process,
            "request_id": request_id.get(),
            "task_id": task_id.get(),
        }
        fields = getattr(record, "fields", None)
        if isinstance(fields, dict):  # a library's record may have an attribute of that name
            line |= fields
        if record.exc_info:
            line["exception"] = self._exception(record.exc_info)
        return _bounded(line)

    def _exception(self, exc_info: Any) -> str:
        try:
            return self.formatException(exc_info)
        except Exception as exc:  # noqa: BLE001 - formatting it runs code of the exception's class
            return f"{exc_info[0]}, which cannot be formatted: {type(exc).__name__}"


@lru_cache(maxsize=1)
def second_text(since_epoch_s: int) -> str:
    """The date and time of a second; a busy process writes many lines in each."""
    return datetime.fromtimestamp(since_epoch_s, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def _message(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except Exception as exc:  # noqa: BLE001 - arguments that do not fit, or whose __str__ raises
        return f"{reprlib.repr(record.msg)}, whose arguments cannot be formatted: {type(exc).__name__}"


def _bounded(line: dict[str, Any]) -> str:
    """The line as JSON, without fields that are None, its texts shortened as far as that takes."""
    types = set(map(type, line.values()))
    if NoneType in types:
        line = {name: value for name, value in line.items() if value is not None}
    try:
        encoded = to_json(line, inf_nan_mode="strings").decode() if types <= _SCALARS else _encode(line)
    except Exception:  # noqa: BLE001 - what json does not take is text below
        encoded = ""
    # as nearly all; four bytes are the most that a character takes, and a lone surrogate is not printable
    if 0 < len(encoded) < LINE_MAX_BYTES // 4 and encoded.isprintable():
        return encoded
    for max_chars in (TEXT_MAX_CHARS, TEXT_MAX_CHARS // 4, TEXT_MAX_CHARS // 16, TEXT_MIN_CHARS):
        encoded = _encode({clean(str(name), max_chars): _fit(value, max_chars) for name, value in line.items()})
        if len(encoded.encode()) < LINE_MAX_BYTES:
            return encoded
    # too many fields: what the line is about is in the first ones
    return _encode({name: _fit(value, TEXT_MIN_CHARS) for name, value in islice(line.items(), FIELDS_MIN)})


def _fit(value: Any, max_chars: int) -> Any:
    """A text, shortened; anything else as it is if that is as short in JSON, else as text."""
    if isinstance(value, str):
        return clean(value, max_chars)
    if not (isinstance(value, Sized) and len(value) > ITEMS_MAX):
        with suppress(Exception):  # of a type that json does not know, too deep, a number of too many digits
            cleaned = clean_all(value, max_chars)
            if len(_encode(cleaned)) <= max_chars:
                return cleaned
    try:
        return clean(reprlib.repr(value), max_chars)  # bounded whatever the value
    except Exception:  # noqa: BLE001 - a number of too many digits again
        return f"<{type(value).__name__}>"


# For these types pydantic writes the same JSON as `json`, in a quarter of the time. For others it differs: it also
# accepts types that `json` refuses, and reads iterators to their end.
_SCALARS = {str, int, float, bool, NoneType}
# One for all: json.dumps would make one for each line. NaN and the infinities are no JSON, and become text.
_encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False).encode


_handler: logging.StreamHandler[Any] | None = None


def configure(level: str) -> None:
    """Send every logger's lines to standard error as JSON, uvicorn's and Celery's included."""
    global _handler  # noqa: PLW0603 - of the process, as all of logging
    # What no line of ours shows, and each would cost (Python's "Logging HOWTO", "Optimization").
    logging.logThreads = logging.logMultiprocessing = False
    logging._srcfile = None  # noqa: SLF001 - as that page says
    _handler = handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter())
    logging.basicConfig(level=level, handlers=[handler], force=True)
    logging.captureWarnings(capture=True)
    # The API logs its requests itself, with their ids. Where nobody listens uvicorn does not even write its own line.
    access = logging.getLogger("uvicorn.access")
    access.handlers.clear()
    access.propagate = False
    for name in ("uvicorn", "uvicorn.error"):
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True


def write(logger: logging.Logger, level: int, message: str, **fields: object) -> None:
    """Log a line with these fields. Never raises: a task or a library may have set a filter or a factory that does."""
    with suppress(Exception):
        logger.log(level, message, extra={"fields": fields})


def restore(*loggers: logging.Logger) -> None:
    """Put back what leads these loggers' lines to standard error.

    A task may have changed it: `logging.config.dictConfig` replaces the root's handlers, and disables every logger that
    it does not name.
    """
    if _handler is None:
        return
    if _handler.stream.closed:  # sys.stderr; its file descriptor is still open
        _handler.stream = open(2, "w", encoding="utf-8", errors="backslashreplace", closefd=False)  # noqa: SIM115
    if _handler not in logging.root.handlers:
        logging.root.addHandler(_handler)
    if _handler.filters:
        _handler.filters.clear()
    for logger in loggers:
        if logger.disabled or logger.manager.disable:
            logger.disabled = False
            logging.disable(logging.NOTSET)  # also empties every logger's cache of enabled levels
