"""Celery's result backend on the contract's records: only `begin` and `end` write them.

The base class brings the connection's settings, its time-outs and the endless retry while Redis is away
(`result_backend_always_retry`). The worker's main process never talks to Redis: a wait there would stop its
heartbeats and its time limits. Where Celery would store from it, the message goes to the dead letters instead,
and the recorder writes the FAILURE.
"""

import json
import logging
import threading
import time
from collections import deque
from functools import cached_property
from typing import Any

from billiard.process import current_process
from celery import states as celery_states
from celery.backends.redis import RedisBackend
from celery.exceptions import Reject
from redis import Redis
from redis.backoff import NoBackoff
from redis.connection import AbstractConnection
from redis.exceptions import ConnectionError, RedisError  # noqa: A004 - Python's own is another one
from redis.retry import Retry

from apps import logs
from apps.contract import states
from apps.worker.script import Script

log = logging.getLogger(__name__)

BEGIN = Script(states.BEGIN)
END = Script(states.END)


def in_main_loop() -> bool:
    """Whether this code runs where the worker talks to the broker, and not in its pool."""
    return threading.current_thread() is threading.main_thread() and current_process().name == "MainProcess"


class Backend(RedisBackend):  # type: ignore[misc]  # celery ships no types
    """Records in Redis; FAILURE results are `{"type", "message"}`."""

    def begin(self, task_id: str, publish_id: str, worker: str, now_s: float) -> str:
        """Claim a task for this publish. Answers as the script does; waits while Redis is away."""
        keys = [states.key(task_id), states.channel(task_id), states.begun_channel(task_id)]
        arguments = [publish_id, worker, now_s, self._record_ttl_s]
        answer: str = self._ensure_retryable(self._run, BEGIN, keys, arguments)
        return answer

    def encode_result(self, result: Any, state: str) -> Any:
        if isinstance(result, BaseException):
            return states.failure(type(result).__name__, str(result))
        return result

    def _store_result(
        self, task_id: str, result: Any, state: str, traceback: str | None = None, request: Any = None, **_: Any
    ) -> Any:
        """Write a final state; RETRY and STARTED are `begin`'s business.

        Celery writes RETRY after it has published the retry: another worker may have begun it by then.
        """
        if state not in celery_states.READY_STATES:
            return result
        if in_main_loop():
            log.warning("left to the recorder", extra={"fields": {"task_id": task_id, "state": state}})
            return result
        keys = [states.key(task_id), states.channel(task_id)]
        meta = _meta(request, state, result)
        now_s = time.time()
        arguments = [request.publish_id, state, meta, now_s, self._record_ttl_s]
        answer = self._run(END, keys, arguments)
        about = {"task": request.task, "state": state, "stored": answer, "retries": request.retries}
        began_s = getattr(request, "began_s", now_s)
        log.info("ended", extra={"fields": about | {"ms": round((now_s - began_s) * 1000, 1)}})
        return result

    def exception_safe_to_retry(self, exc: Exception) -> bool:
        # not only lost connections: also a Redis that is full, loading or read-only may be so no longer
        return isinstance(exc, RedisError | OSError)

    def on_task_call(self, producer: Any, task_id: str) -> None:
        """Nothing waits here for results: the stock backend would SUBSCRIBE at each retry."""

    def process_cleanup(self) -> None:
        """Called after each task, however it ended: what is logged next is about none."""
        logs.request_id.set(None)
        logs.task_id.set(None)

    def _create_client(self, **params: Any) -> Redis:
        # Celery retries around each call; redis-py's own retries inside those would only multiply the waits.
        client: Redis = super()._create_client(**params | {"retry": Retry(NoBackoff(), 0), "decode_responses": True})
        return client

    @cached_property
    def _record_ttl_s(self) -> int:
        ttl_s: int = self.app.conf.sluice_record_ttl_s  # a look-up there takes longer than all else around it
        return ttl_s

    @cached_property
    def _idle(self) -> deque[AbstractConnection]:
        return deque()

    def _run(self, script: Script, keys: list[str], arguments: list[Any]) -> str:
        """One round trip, on a connection of redis-py, without its client.

        That one would look before each command whether the connection has died, and measure it all: as long again as
        the round trip.
        """
        try:
            connection = self._idle.pop()
        except IndexError:
            pool = self.client.connection_pool  # which itself would give no more than a hundred
            return self._ask(pool.connection_class(**pool.connection_kwargs), script, keys, arguments)
        try:
            return self._ask(connection, script, keys, arguments)
        except ConnectionError:  # it was closed meanwhile; both scripts may be run again
            return self._ask(connection, script, keys, arguments)

    def _ask(self, connection: AbstractConnection, script: Script, keys: list[str], arguments: list[Any]) -> str:
        answered = False
        try:
            answer = script.run(connection, keys, arguments)
            answered = True
        except (RedisError, OSError):
            raise
        except Exception as exc:  # a defect of ours: let the recorder end the task rather than lose it
            log.exception("record not written")
            raise Reject(exc, requeue=False) from exc
        finally:
            if not answered:  # whatever it was, a signal too: what comes late would be the next task's answer
                connection.disconnect()  # type: ignore[no-untyped-call]
            self._idle.append(connection)
        return answer


def _meta(request: Any, state: str, result: Any) -> str:
    """The result as JSON: what the task has left in its request, else what Celery has to say."""
    if state == celery_states.SUCCESS:
        return str(request.result)
    failed = getattr(request, "failure", None) if state == celery_states.FAILURE else None
    return json.dumps(failed or result)
