"""JSON logs: one object a line, with the request id and the task id wherever there is one."""

import json
import logging
from contextvars import ContextVar
from datetime import UTC, datetime

request_id: ContextVar[str | None] = ContextVar("request_id", default=None)
traceparent: ContextVar[str | None] = ContextVar("traceparent", default=None)
task_id: ContextVar[str | None] = ContextVar("task_id", default=None)


class JsonFormatter(logging.Formatter):
    """Formats a record as one JSON object; what is passed as `extra={"fields": {...}}` is added to it."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            "pid": record.process,
            "request_id": request_id.get(),
            "task_id": task_id.get(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return _encode({name: value for name, value in line.items() if value is not None})


_encode = json.JSONEncoder(ensure_ascii=False).encode  # one for all: json.dumps would make one for each line


def configure(level: str) -> None:
    """Send every logger's lines to standard error as JSON, uvicorn's and Celery's included."""
    # What no line of ours shows, and each would cost (Python's "Logging HOWTO", "Optimization").
    logging.logThreads = logging.logMultiprocessing = False
    logging._srcfile = None  # noqa: SLF001 - as that page says
    handler = logging.StreamHandler()
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
