"""Failure types that are not exceptions of a task's function: why a task's message was dead-lettered.

    the broker     DeliveryLimitExceeded, MessageExpired, QueueOverflow    in the header x-death
    the worker     HardTimeLimitExceeded, RetryRefused, NotUnderstood,     in the header FAILURE_HEADER
                   ResultNotStored, malformed
    the recorder   malformed
    unknown        Rejected: a consumer rejected the message and gave no reason

An exception raised outside of the task's function gives its own type.
"""

import json
from typing import Any

from apps.contract import topology
from apps.contract.results import ResultTooLarge
from apps.contract.states import failure

HARD_TIME_LIMIT = "HardTimeLimitExceeded"
DELIVERY_LIMIT = "DeliveryLimitExceeded"
EXPIRED = "MessageExpired"
OVERFLOW = "QueueOverflow"
REJECTED = "Rejected"
RETRY_REFUSED = "RetryRefused"
NOT_STORED = "ResultNotStored"
# The task needs a worker of another version, and none took it in time (apps/worker/version_returns.py).
NOT_UNDERSTOOD = "NotUnderstood"
# The message cannot be read, so there may be no task to record a failure for.
MALFORMED = "malformed"
TYPES = frozenset({
    HARD_TIME_LIMIT, DELIVERY_LIMIT, EXPIRED, OVERFLOW, REJECTED, RETRY_REFUSED, NOT_STORED, NOT_UNDERSTOOD, MALFORMED,
})  # fmt: skip

# A worker that dead-letters a message sets this header: the failure as JSON.
FAILURE_HEADER = "failure"

# Failures by the broker's dead-letter reason.
_BY_BROKER = {
    "delivery_limit": failure(
        DELIVERY_LIMIT, "its worker was lost each time the task was tried, up to the delivery limit"
    ),
    "expired": failure(EXPIRED, f"it waited in its queue for longer than {topology.MESSAGE_TTL_S} s"),
    "maxlen": failure(OVERFLOW, "its queue was full"),
}


def of_dead_letter(headers: dict[str, Any]) -> dict[str, str]:
    """The failure of a dead letter, from its headers: the worker's reason if there is one, else the broker's."""
    given = _given(headers.get(FAILURE_HEADER))
    if given is not None:
        return given
    reason = _death(headers)
    return _BY_BROKER.get(reason) or failure(
        REJECTED, f"a consumer rejected the message without a reason (the broker's reason: {reason})"
    )


def hard_time_limit(limit_s: float) -> dict[str, str]:
    """The failure of a task whose process was killed at its hard time limit."""
    return failure(HARD_TIME_LIMIT, f"it ran for longer than its hard time limit of {limit_s} s")


def retry_refused(refusal: dict[str, str], error: dict[str, str]) -> dict[str, str]:
    """The failure of a task whose retry the broker did not confirm; `error` caused the retry."""
    return failure(
        RETRY_REFUSED,
        f"its retry after {error['type']}: {error['message']} was not confirmed by the broker"
        f" ({refusal['type']}: {refusal['message']})",
    )


def not_stored(refusal: Exception) -> dict[str, str]:
    """The failure of a task whose result Redis refuses on every attempt."""
    return failure(NOT_STORED, f"Redis refuses to store the result of the task: {refusal}")


def too_large_for_redis(size_bytes: int, limit_bytes: int, setting: str) -> dict[str, str]:
    """The failure of a task whose result exceeds the largest value that Redis accepts."""
    message = f"the result has {size_bytes} bytes, and Redis takes {limit_bytes} at most (its setting {setting})"
    return failure(ResultTooLarge.__name__, message)


def unknown_task(name: object) -> dict[str, str]:
    """The failure of a message that names a task this worker's version does not have."""
    return not_understood(f"the worker has no task {name!r}")


def not_understood(reason: str) -> dict[str, str]:
    """The failure of a message that needs a worker of another version."""
    return failure(NOT_UNDERSTOOD, reason)


def malformed(reason: str) -> dict[str, str]:
    """The failure of a message that is not a valid task message."""
    return failure(MALFORMED, f"the message cannot be read: {reason}")


def revoked(reason: str) -> dict[str, str]:
    """The failure of a message that Celery refuses to run: expired by its header `expires`, or revoked remotely."""
    if reason == "expired":
        return failure(EXPIRED, "the time in its header `expires` has passed")
    return failure(REJECTED, f"the worker rejected the message: {reason}")


def _given(header: object) -> dict[str, str] | None:
    text = header.decode(errors="replace") if isinstance(header, bytes) else header
    if not isinstance(text, str):
        return None
    try:
        found = json.loads(text)
        return failure(str(found["type"]), str(found["message"]))
    except (ValueError, LookupError, TypeError, RecursionError):  # the publisher is not trusted
        return None


def _death(headers: dict[str, Any]) -> str:
    """Why the broker dead-lettered a message: delivery_limit, expired, rejected or maxlen.

    `x-death[0]` is the latest death in every RabbitMQ version. `x-first-death-reason` is unsuitable: retries wait in
    a delay queue until they expire there, so after any retry it says "expired".
    """
    deaths = headers.get("x-death")
    last = deaths[0] if isinstance(deaths, list) and deaths else {}  # the publisher is not trusted
    reason = last.get("reason") if isinstance(last, dict) else None
    return str(headers.get("x-last-death-reason") or reason or "unknown")
