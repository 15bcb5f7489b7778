"""Celery's result backend for the contract's records: a worker writes them only by `begin`, `end` and `give_back`.

The base class provides connection settings, time-outs and endless retries during an outage of Redis
(`result_backend_always_retry`). The three methods are called only in the worker's pool (apps/worker/task.py): waiting
for Redis in the main process would stop heartbeats and time limits. A task that fails in the main process becomes a
dead letter, and the recorder writes its FAILURE.
"""

import logging
import time
from collections import deque
from functools import cached_property
from json import dumps  # imported by name: a task may patch the module
from typing import Any

from celery.backends.redis import RedisBackend
from celery.exceptions import Reject
from redis import Redis
from redis.backoff import NoBackoff
from redis.connection import AbstractConnection
from redis.exceptions import ConnectionError, RedisError  # noqa: A004 - not Python's ConnectionError
from redis.retry import Retry

from apps import logs
from apps.contract import states
from apps.worker.disabled_celery_api import READ, refused
from apps.worker.redis_errors import NotStored, raise_if_final
from apps.worker.script import Script

log = logging.getLogger(__name__)

BEGIN = Script(states.BEGIN)
END = Script(states.END)
END_WHEN_FULL = Script(states.END_WHEN_FULL)
GIVE_BACK = Script(states.GIVE_BACK)


class Backend(RedisBackend):  # type: ignore[misc]  # celery ships no types
    """Task records in Redis."""

    def begin(self, task_id: str, publish_id: str, now_s: float, owner: object) -> str:
        """Claim a task for this publish; waits while Redis is unreachable or full. Returns the answer of BEGIN."""
        record_keys = states.record_keys(task_id)
        keys = record_keys.script_keys(task_id, owner, states.begun_channel(task_id))
        old = now_s - record_keys.created_s > self._result_ttl_s - states.CLOCKS_S
        arguments = [*self._arguments(record_keys, now_s), publish_id, self._record_ttl_s, int(old)]
        answer: str = self._ensure_retryable(self._run, BEGIN, keys, arguments)
        return answer

    def end(self, request: Any, state: str, meta: str | bytes) -> str:
        """Write the final state of the task that began with this request, and its result as JSON. Waits like `begin`.

        Returns the state: FAILURE if Redis will never accept this result. Raises Reject if it refuses the FAILURE too.
        """
        now_s = time.time()
        try:
            answer = self._end(request, state, meta, now_s)
        except NotStored as exc:
            state, failure = "FAILURE", exc.failure
            logs.write(log, logging.ERROR, "not stored", task=request.task, reason=failure["message"])
            try:
                answer = self._end(request, state, dumps(failure), now_s)
            except NotStored:
                raise Reject(failure, requeue=False) from None
        about = {"task": request.task, "state": state, "stored": answer, "retries": request.retries}
        logs.write(log, logging.INFO, "ended", **about, ms=round((now_s - request.began_s) * 1000, 1))
        return state

    def _end(self, request: Any, state: str, meta: str | bytes, now_s: float) -> str:
        record_keys = states.record_keys(request.id)
        keys = record_keys.script_keys(request.id, request.get("owner"))
        arguments = [*self._arguments(record_keys, now_s), request.publish_id, state, meta]
        script = END if state == "SUCCESS" else END_WHEN_FULL
        refused: list[Exception] = []

        def store() -> str:
            try:
                return self._run(script, keys, arguments)
            except Exception as exc:
                raise_if_final(exc, len(meta), self.client, refused)
                raise

        answer: str = self._ensure_retryable(store)
        return answer

    def _arguments(self, record_keys: states.RecordKeys, now_s: float) -> list[Any]:
        return record_keys.script_arguments(now_s, self._result_ttl_s, self._record_ttl_s)

    def give_back(self, request: Any) -> str:
        """Undo `begin` for an input that this version does not understand. Waits and returns like `begin`."""
        record_keys = states.record_keys(request.id)
        keys = record_keys.script_keys(request.id, request.get("owner"))
        arguments = [*self._arguments(record_keys, time.time()), request.publish_id]
        answer: str = self._ensure_retryable(self._run, GIVE_BACK, keys, arguments)
        return answer

    def _celerys_own(self, *_: object, **__: object) -> None:
        """Does nothing. Celery calls these methods for each task, but `end` or the recorder writes its outcome."""

    mark_as_done = mark_as_failure = mark_as_retry = mark_as_revoked = on_task_call = _celerys_own

    store_result = refused("result backend", "return the task's output, or raise an error")
    get_task_meta = task_result_exists = wait_for_pending = refused("AsyncResult", READ)
    add_pending_result = get_many = iter_native = refused("AsyncResult", READ)
    forget = save_group = restore_group = refused("AsyncResult", READ)

    def exception_safe_to_retry(self, exc: Exception) -> bool:
        # also retry while Redis is full, loading or read-only; apps/worker/redis_errors.py detects permanent errors
        return isinstance(exc, RedisError | OSError)

    def process_cleanup(self) -> None:
        """Called after each task, whatever its outcome. Clears the ids for the next log lines."""
        logs.request_id.set(None)
        logs.task_id.set(None)

    def _create_client(self, **params: Any) -> Redis:
        # Celery retries each call; additional retries of redis-py would only multiply the delays.
        client: Redis = super()._create_client(**params | {"retry": Retry(NoBackoff(), 0), "decode_responses": True})
        return client

    @cached_property
    def _record_ttl_s(self) -> int:
        ttl_s: int = self.app.conf.sluice_record_ttl_s  # cached: a look-up in the configuration is slow
        return ttl_s

    @cached_property
    def _result_ttl_s(self) -> int:
        ttl_s: int = self.app.conf.sluice_result_ttl_s
        return ttl_s

    @cached_property
    def _idle(self) -> deque[AbstractConnection]:
        return deque()

    def _run(self, script: Script, keys: list[bytes | str], arguments: list[Any]) -> str:
        """Run a script in one round trip, on a connection of redis-py without its client.

        The client checks the connection before each command and records metrics, which takes as long as the round trip.
        """
        try:
            connection = self._idle.pop()
        except IndexError:
            pool = self.client.connection_pool  # used for its settings only: it is limited to 100 connections
            return self._ask(pool.connection_class(**pool.connection_kwargs), script, keys, arguments)
        try:
            return self._ask(connection, script, keys, arguments)
        except ConnectionError:  # an idle connection may have been closed; the scripts are idempotent
            return self._ask(connection, script, keys, arguments)

    def _ask(
        self, connection: AbstractConnection, script: Script, keys: list[bytes | str], arguments: list[Any]
    ) -> str:
        answered = False
        try:
            answer = script.run(connection, keys, arguments)
            answered = True
        finally:
            if not answered:  # also after a signal: the next task would read the late answer
                connection.disconnect()  # type: ignore[no-untyped-call]
            self._idle.append(connection)
        return answer
