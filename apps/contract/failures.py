"""Failure types that no task's function raised: why the message of an accepted task became a dead letter.

    the broker     DeliveryLimitExceeded, MessageExpired, QueueOverflow    in the header x-death
    the worker     HardTimeLimitExceeded, RetryRefused, NotUnderstood,     in the header FAILURE_HEADER
                   ResultNotStored, malformed
    the recorder   malformed
    not known      Rejected: a consumer rejected the message and gave no reason

Where an error outside of the task's function is the reason, the type is that error's own.
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
# A worker of another version would have to run it, and none did in time (apps/worker/returns.py).
NOT_UNDERSTOOD = "NotUnderstood"
# The one that is no error of a task: nobody can read the message, so there may be no task.
MALFORMED = "malformed"
TYPES = frozenset({
    HARD_TIME_LIMIT, DELIVERY_LIMIT, EXPIRED, OVERFLOW, REJECTED, RETRY_REFUSED, NOT_STORED, NOT_UNDERSTOOD, MALFORMED,
})  # fmt: skip

# A worker that gives a message up publishes it to the dead letters with this header: the failure as JSON.
FAILURE_HEADER = "failure"

# By the broker's own reason for a dead letter.
_BY_BROKER = {
    "delivery_limit": failure(
        DELIVERY_LIMIT, "its worker was lost each time the task was tried, up to the delivery limit"
    ),
    "expired": failure(EXPIRED, f"it waited in its queue for longer than {topology.MESSAGE_TTL_S} s"),
    "maxlen": failure(OVERFLOW, "its queue was full"),
}


def of_dead_letter(headers: dict[str, Any]) -> dict[str, str]:
    """The failure of a dead letter, by its headers: the worker's own word, else the broker's."""
    given = _given(headers.get(FAILURE_HEADER))
    if given is not None:
        return given
    reason = _death(headers)
    return _BY_BROKER.get(reason) or failure(
        REJECTED, f"a consumer gave the message up and did not say why (the broker's reason: {reason})"
    )


def hard_time_limit(limit_s: float) -> dict[str, str]:
    """The failure of a task whose process was ended."""
    return failure(HARD_TIME_LIMIT, f"it ran for longer than its hard time limit of {limit_s} s")


def retry_refused(refusal: dict[str, str], error: dict[str, str]) -> dict[str, str]:
    """The failure of a task whose retry the broker did not confirm; `error` is why it was to be tried again."""
    return failure(
        RETRY_REFUSED,
        f"its retry after {error['type']}: {error['message']} was not confirmed by the broker"
        f" ({refusal['type']}: {refusal['message']})",
    )


def not_stored(refusal: Exception) -> dict[str, str]:
    """The failure of a task whose result Redis refuses, however often it is sent."""
    return failure(NOT_STORED, f"Redis refuses to store the result of the task: {refusal}")


def too_large_for_redis(size_bytes: int, limit_bytes: int, setting: str) -> dict[str, str]:
    """The failure of a task whose result is longer than any that Redis takes."""
    message = f"the result has {size_bytes} bytes, and Redis takes {limit_bytes} at most (its setting {setting})"
    return failure(ResultTooLarge.__name__, message)


def unknown_task(name: object) -> dict[str, str]:
    """Why a worker cannot run a message that names no task of its version."""
    return not_understood(f"the worker has no task {name!r}")


def not_understood(reason: str) -> dict[str, str]:
    """Why a worker cannot run a message of another version of the contract."""
    return failure(NOT_UNDERSTOOD, reason)


def malformed(reason: str) -> dict[str, str]:
    """The failure of a message that is not a task's."""
    return failure(MALFORMED, f"the message cannot be read: {reason}")


def revoked(reason: str) -> dict[str, str]:
    """The failure of a message that Celery refuses to run, by its header `expires` or by remote control."""
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
    except (ValueError, LookupError, TypeError, RecursionError):  # anybody may have published it
        return None


def _death(headers: dict[str, Any]) -> str:
    """Why the broker dead-lettered a message: delivery_limit, expired, rejected or maxlen.

    `x-death[0]` is the latest death on every version; `x-first-death-reason` says "expired" after any retry,
    which waits in an expiring delay queue.
    """
    deaths = headers.get("x-death")
    last = deaths[0] if isinstance(deaths, list) and deaths else {}  # anybody may have published it
    reason = last.get("reason") if isinstance(last, dict) else None
    return str(headers.get("x-last-death-reason") or reason or "unknown")
