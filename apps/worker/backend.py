"""Celery's result backend on the contract's records: only `begin`, `end` and `give_back` write them.

The base class brings the connection's settings, its time-outs and the endless retry while Redis is away
(`result_backend_always_retry`). All are called in the worker's pool alone (apps/worker/task.py): a wait for Redis in
the main process would stop its heartbeats and its time limits. What ends there becomes a dead letter, and the recorder
writes its FAILURE.
"""

import logging
import time
from collections import deque
from functools import cached_property
from json import dumps  # by name: a task may replace the functions of the module
from typing import Any

from celery.backends.redis import RedisBackend
from celery.exceptions import Reject
from redis import Redis
from redis.backoff import NoBackoff
from redis.connection import AbstractConnection
from redis.exceptions import ConnectionError, RedisError  # noqa: A004 - Python's own is another one
from redis.retry import Retry

from apps import logs
from apps.contract import states
from apps.worker.celery_api import READ, refused
from apps.worker.script import Script
from apps.worker.storing import NotStored, raise_if_final

log = logging.getLogger(__name__)

BEGIN = Script(states.BEGIN)
END = Script(states.END)
END_WHEN_FULL = Script(states.END_WHEN_FULL)
GIVE_BACK = Script(states.GIVE_BACK)


class Backend(RedisBackend):  # type: ignore[misc]  # celery ships no types
    """Records in Redis."""

    def begin(self, task_id: str, publish_id: str, now_s: float, owner: object) -> str:
        """Claim a task for this publish. Answers as the script does; waits while Redis is away or full."""
        place = states.place(task_id)
        keys = place.keys(task_id, owner, states.begun_channel(task_id))
        old = now_s - place.created_s > self._result_ttl_s - states.CLOCKS_S
        arguments = [*self._arguments(place, now_s), publish_id, self._record_ttl_s, int(old)]
        answer: str = self._ensure_retryable(self._run, BEGIN, keys, arguments)
        return answer

    def end(self, request: Any, state: str, meta: str | bytes) -> str:
        """Write the final state of the task that began with this request, and its result as JSON; waits as `begin`.

        Answers the state: FAILURE where Redis will never take this result. Raises Reject where it takes none at all.
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
        place = states.place(request.id)
        keys = place.keys(request.id, request.get("owner"))
        arguments = [*self._arguments(place, now_s), request.publish_id, state, meta]
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

    def _arguments(self, place: states.Place, now_s: float) -> list[Any]:
        return place.arguments(now_s, self._result_ttl_s, self._record_ttl_s)

    def give_back(self, request: Any) -> str:
        """Undo `begin` for a task whose input this version does not understand. Answers as the script; waits as it."""
        place = states.place(request.id)
        keys = place.keys(request.id, request.get("owner"))
        arguments = [*self._arguments(place, time.time()), request.publish_id]
        answer: str = self._ensure_retryable(self._run, GIVE_BACK, keys, arguments)
        return answer

    def _celerys_own(self, *_: object, **__: object) -> None:
        """Nothing: Celery calls these around each task, whose outcome is written, or will be by the recorder."""

    mark_as_done = mark_as_failure = mark_as_retry = mark_as_revoked = on_task_call = _celerys_own

    store_result = refused("result backend", "return the task's output, or raise an error")
    get_task_meta = task_result_exists = wait_for_pending = refused("AsyncResult", READ)
    add_pending_result = get_many = iter_native = refused("AsyncResult", READ)
    forget = save_group = restore_group = refused("AsyncResult", READ)

    def exception_safe_to_retry(self, exc: Exception) -> bool:
        # not only lost connections: also a Redis that is full, loading or read-only may be so no longer; what cannot
        # change is found in apps/worker/storing.py
        return isinstance(exc, RedisError | OSError)

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
    def _result_ttl_s(self) -> int:
        ttl_s: int = self.app.conf.sluice_result_ttl_s
        return ttl_s

    @cached_property
    def _idle(self) -> deque[AbstractConnection]:
        return deque()

    def _run(self, script: Script, keys: list[bytes | str], arguments: list[Any]) -> str:
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

    def _ask(
        self, connection: AbstractConnection, script: Script, keys: list[bytes | str], arguments: list[Any]
    ) -> str:
        answered = False
        try:
            answer = script.run(connection, keys, arguments)
            answered = True
        finally:
            if not answered:  # also after a signal: a late answer would be read as the next task's
                connection.disconnect()  # type: ignore[no-untyped-call]
            self._idle.append(connection)
        return answer
