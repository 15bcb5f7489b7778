"""Receives cancelled task ids in the worker's main process. A pool of threads does not listen.

    API: cancel --> Redis: flag in the record, id on the channel --> this thread --> watchdog
                                                                                       | signal
                                             Cancelled, raised in the task --> end(REVOKED), ack

If a task ignores the interrupt, its process is killed, and the next `begin` finds the flag. In a pool of threads, a
running task is not interrupted.
"""

import logging
import threading
import time

from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from apps.contract import states
from apps.worker.watchdog import Watchdog

log = logging.getLogger(__name__)

RECONNECT_S = 1.0
# If Redis is silent for this time, check the connection with PING.
LISTEN_S = 5.0


def listen(watchdog: Watchdog, redis_url: str) -> None:
    """Start the thread; called once in the main process."""
    threading.Thread(target=_listen, args=(watchdog, redis_url), name="cancellation", daemon=True).start()


def _listen(watchdog: Watchdog, redis_url: str) -> None:
    while True:
        client = Redis.from_url(
            redis_url, decode_responses=True, socket_timeout=LISTEN_S, socket_connect_timeout=2,
            retry=Retry(NoBackoff(), 0), health_check_interval=LISTEN_S,
        )  # fmt: skip
        try:
            _serve(watchdog, client)
        except (RedisError, OSError) as exc:
            log.warning("Redis away", extra={"fields": {"error": repr(exc)}})
        client.close()
        time.sleep(RECONNECT_S)


def _serve(watchdog: Watchdog, client: Redis) -> None:
    with client.pubsub() as channel:  # type: ignore[no-untyped-call]
        channel.subscribe(states.CANCEL_CHANNEL)
        while True:
            message = channel.get_message(timeout=LISTEN_S)
            kind = message["type"] if message else ""
            if kind == "message":
                watchdog.cancel(str(message["data"]))
            elif kind == "subscribe":  # also check for cancels before the subscription
                for task_id in watchdog.noted():
                    if _is_cancelled(client, task_id):
                        watchdog.cancel(task_id)


def _is_cancelled(client: Redis, task_id: str) -> bool:
    record_keys = states.record_keys(task_id)
    if client.getrange(record_keys.record, 0, 0) == "C":
        return True
    return bool(client.hexists(record_keys.earlier, "cancel"))
