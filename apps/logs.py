"""JSON logs: one object per line of bounded length, with the request id and the task id if there are any."""

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

# Including the line break: containerd and Docker split longer lines at 16 KiB, and the parts are not valid JSON.
LINE_MAX_BYTES = 16 * 1024
# Per text in a line. Head and tail are kept: for a traceback, its start and the last exception. In a line with several
# long texts, or with characters of several bytes, each text is cut to less.
TEXT_MAX_CHARS = 8000
TEXT_MIN_CHARS = 100
# The number of first fields that fit into any line: they include the message and the ids.
FIELDS_MIN = 7
# A longer list is logged with its first few items only: encoding it all would take too long.
ITEMS_MAX = 100

request_id: ContextVar[str | None] = ContextVar("request_id", default=None)
traceparent: ContextVar[str | None] = ContextVar("traceparent", default=None)
task_id: ContextVar[str | None] = ContextVar("task_id", default=None)


class JsonFormatter(logging.Formatter):
    """Formats a record as one JSON object, with the fields passed as `extra={"fields": {...}}`.

    Every record gives a line of at most LINE_MAX_BYTES, whatever its texts contain.
    """

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": time_text(int(record.created * 1000)),
            "level": record.levelname,
            "logger": record.name,
            "message": _message(record),
            "pid": record.process,
            "request_id": request_id.get(),
            "task_id": task_id.get(),
        }
        fields = getattr(record, "fields", None)
        if isinstance(fields, dict):  # a library may use an attribute of this name
            line |= fields
        if record.exc_info:
            line["exception"] = self._exception(record.exc_info)
        return _bounded(line)

    def _exception(self, exc_info: Any) -> str:
        try:
            return self.formatException(exc_info)
        except Exception as exc:  # noqa: BLE001 - formatting runs code of the exception's class
            return f"{exc_info[0]}, which cannot be formatted: {type(exc).__name__}"


def time_text(since_epoch_ms: int) -> str:
    """The time of a line."""
    second, ms = divmod(since_epoch_ms, 1000)
    return f"{_second_text(second)}.{ms:03d}+00:00"


@lru_cache(maxsize=1)
def _second_text(since_epoch_s: int) -> str:
    """The date and time of a second. Cached, as a busy process writes many lines per second."""
    return datetime.fromtimestamp(since_epoch_s, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def _message(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except Exception as exc:  # noqa: BLE001 - arguments that do not match the format, or whose __str__ raises
        return f"{reprlib.repr(record.msg)}, whose arguments cannot be formatted: {type(exc).__name__}"


def _bounded(line: dict[str, Any]) -> str:
    """The line as JSON, without fields that are None, and with texts shortened until it fits."""
    types = set(map(type, line.values()))
    if NoneType in types:
        line = {name: value for name, value in line.items() if value is not None}
    try:
        encoded = to_json(line, inf_nan_mode="strings").decode() if types <= _SCALARS else _encode(line)
    except Exception:  # noqa: BLE001 - values that json refuses are logged as text below
        encoded = ""
    # the usual case. A character takes at most four bytes; a lone surrogate is not printable
    if 0 < len(encoded) < LINE_MAX_BYTES // 4 and encoded.isprintable():
        return encoded
    for max_chars in (TEXT_MAX_CHARS, TEXT_MAX_CHARS // 4, TEXT_MAX_CHARS // 16, TEXT_MIN_CHARS):
        encoded = _encode({clean(str(name), max_chars): _fit(value, max_chars) for name, value in line.items()})
        if len(encoded.encode()) < LINE_MAX_BYTES:
            return encoded
    # too many fields: keep the first ones, which identify the event
    return _encode({name: _fit(value, TEXT_MIN_CHARS) for name, value in islice(line.items(), FIELDS_MIN)})


def _fit(value: Any, max_chars: int) -> Any:
    """A shortened text; other values unchanged if their JSON has at most max_chars, else as shortened text."""
    if isinstance(value, str):
        return clean(value, max_chars)
    if not (isinstance(value, Sized) and len(value) > ITEMS_MAX):
        with suppress(Exception):  # unknown to json, nested too deep, or a number of too many digits
            cleaned = clean_all(value, max_chars)
            if len(_encode(cleaned)) <= max_chars:
                return cleaned
    try:
        return clean(reprlib.repr(value), max_chars)  # reprlib bounds the size
    except Exception:  # noqa: BLE001 - a number of too many digits
        return f"<{type(value).__name__}>"


# For these types pydantic writes the same JSON as `json`, in a quarter of the time. For other types it differs: it
# accepts more types than `json`, and consumes iterators.
_SCALARS = {str, int, float, bool, NoneType}
# Shared: json.dumps would create an encoder for each line. NaN and the infinities are not JSON: they become text.
_encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False).encode


_handler: logging.StreamHandler[Any] | None = None


def configure(level: str) -> None:
    """Send the lines of all loggers, including uvicorn's and Celery's, to standard error as JSON."""
    global _handler  # noqa: PLW0603 - one per process, like all of logging
    # Do not collect attributes that the lines do not contain (Python's "Logging HOWTO", "Optimization").
    logging.logThreads = logging.logMultiprocessing = False
    logging._srcfile = None  # noqa: SLF001 - recommended there
    _handler = handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter())
    logging.basicConfig(level=level, handlers=[handler], force=True)
    logging.captureWarnings(capture=True)
    # The API logs its requests itself, with their ids. Without handlers, uvicorn skips its access log.
    access = logging.getLogger("uvicorn.access")
    access.handlers.clear()
    access.propagate = False
    for name in ("uvicorn", "uvicorn.error"):
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True


def write(logger: logging.Logger, level: int, message: str, **fields: object) -> None:
    """Log a line with these fields. Never raises, although a task or a library may have set a filter that does."""
    with suppress(Exception):
        logger.log(level, message, extra={"fields": fields})


def restore(*loggers: logging.Logger) -> None:
    """Restore the logging of these loggers to standard error.

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
