"""Returns messages that this version of the worker does not understand, for a worker of another version.

    unknown task, input or form --> the delay exchange --> the same queue --> any worker; repeated with longer delays
                     `-- RETURN_MAX_S after its first return --> the dead letters: NotUnderstood

The API has validated the input. If a worker does not know the task, or its model refuses the input, the worker is of
another version, or its validators are not pure. A nack would return the message immediately, and RabbitMQ 3.10 would
count it against the delivery limit.
"""

import logging
import time
from typing import Any, NamedTuple

from kombu.transport.native_delayed_delivery import MAX_LEVEL, calculate_routing_key, level_name

from apps.contract import failures, topology
from apps.contract.message import CONTENT_ENCODING, CONTENT_TYPE, FIRST_RETURN_HEADER, RETURNS_HEADER
from apps.worker import task_metrics

log = logging.getLogger(__name__)

# Delays of 1, 2, 4 ... 32 s: short at first, as most workers may be of the other version. With the longest delay,
# 10,000 messages that wait for a rollout cost a worker 300 messages per second.
DELAY_MAX_EXPONENT = 5


class Copy(NamedTuple):
    """A message that replaces another one."""

    exchange: str
    routing_key: str
    body: Any
    headers: dict[str, Any]
    content_type: str | None = CONTENT_TYPE
    content_encoding: str | None = CONTENT_ENCODING


def later(message: Any, what: str, failed: dict[str, str], max_s: float) -> Copy | dict[str, str]:
    """The copy for the delay exchange, or the failure after `max_s`. `what` is the label in the metric."""
    headers = message.headers
    now_s = time.time()
    first_s = headers.get(FIRST_RETURN_HEADER) or now_s
    returns = headers.get(RETURNS_HEADER) or 0
    about = {"task_id": headers["id"], "request_id": headers.get("request_id"), "task": headers["task"]}
    about |= {"what": what, "reason": failed["message"], "returns": returns, "waited_s": round(now_s - first_s, 1)}
    if not -max_s <= now_s - first_s < max_s:  # clocks differ; an implausible time ends the wait
        log.error("not understood", extra={"fields": about})
        waited = f"no worker understood it within {max_s:g} s of its first return ({returns} returns)"
        return failures.not_understood(f"{waited}: {failed['message']}")
    delay_s = 2 ** min(max(returns, 0), DELAY_MAX_EXPONENT)
    log.warning("returned", extra={"fields": about | {"delay_s": delay_s}})
    task_metrics.RETURNED.labels(what).inc()
    # drop the headers that the broker added, and would extend
    kept = {name: value for name, value in headers.items() if not str(name).startswith("x-")}
    return Copy(
        level_name(MAX_LEVEL),
        calculate_routing_key(delay_s, _queue(message)),
        message.body,
        kept | {FIRST_RETURN_HEADER: first_s, RETURNS_HEADER: returns + 1},
        message.content_type,
        message.content_encoding,
    )


def _queue(message: Any) -> str:
    """The queue of a message. After a delay, the routing key has the delay as its prefix."""
    key = str(message.delivery_info.get("routing_key"))
    found = [name for name in topology.WORK_QUEUES if key == name or key.endswith(f".{name}")]
    return max(found, key=len, default=topology.DEFAULT_QUEUE)
