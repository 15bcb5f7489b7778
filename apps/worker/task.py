"""The path of every task: claim its record, call its function, write the outcome.

    begin --> function: SUCCESS, FAILURE --> end --> the main process acks
         |            | an error to retry on --> the retry is published --> ack; refused --> dead letter
         |            | a cancel (apps/worker/limits.py) --> end(REVOKED) --> ack
         |            | an input of another version --> give_back --> returned (apps/worker/version_returns.py) --> ack
         |            `-- SIGTERM to this process --> nothing is written; the broker redelivers the task
         `-- final, claimed or cancelled --> ack

Celery's control exceptions have no special meaning in a function: they are handled like any other error.
"""

import logging
import os
import sys
import time
from contextlib import suppress
from functools import cached_property
from json import dumps, loads  # imported by name: a task may patch the module
from typing import Any, NamedTuple

from billiard.common import terminate_handler_fired
from celery.exceptions import Reject, SoftTimeLimitExceeded
from celery.utils.time import get_exponential_backoff_interval
from pydantic import BaseModel

from apps import logs
from apps.contract import failures, results
from apps.contract.message import read_input
from apps.contract.settings import WorkerSettings
from apps.contract.tasks import Input, TaskSpec
from apps.worker import backend
from apps.worker.disabled_celery_api import POST, RefusingTask, refused
from apps.worker.limits import Limits
from apps.worker.outcome import failure_of, is_a, traceback_of

log = logging.getLogger(__name__)

_called_refused = refused("call of a task", POST)


class End(NamedTuple):
    """The end of a run; `meta` is the result as JSON."""

    state: str
    meta: str | bytes


SUCCESS, FAILURE, REVOKED, RETRY, SKIPPED = "SUCCESS", "FAILURE", "REVOKED", "RETRY", "SKIPPED"
RETURNED = "RETURNED"


class _NotUnderstood(Exception):
    """The worker's model refuses an input that the API accepted. The only argument is the failure."""


class ContractTask(RefusingTask):
    """A task of the contract. Celery calls `run` in the pool for each message."""

    abstract = True
    Request = "apps.worker.request:Request"
    spec: TaskSpec
    settings: WorkerSettings
    limits: Limits
    function: Any
    function_settings: tuple[Any, ...]
    retry_on: tuple[type[Exception], ...]

    @cached_property
    def backend(self) -> Any:
        """The app's backend, cached: Celery looks it up three times per task."""
        return self.app.backend

    def publish_retry(self, request: Any) -> None:
        """Publish this task again with a delay. Returns when the broker has confirmed it; raises if it does not."""
        settings = self.settings
        signature = self.signature_from_request(
            request,
            retries=request.retries + 1,
            countdown=get_exponential_backoff_interval(
                factor=settings.retry_backoff_s,
                retries=request.retries,
                maximum=settings.retry_backoff_max_s,
                full_jitter=True,  # spreads the retries of tasks that failed at the same time
            ),
        )
        returned: list[Exception] = []

        def on_return(error: Exception, *_: object) -> None:
            returned.append(error)

        with self.app.producer_pool.acquire(block=True) as producer:
            producer.on_return = on_return  # for the channel of a new connection too
            producer.channel.events["basic_return"] = {on_return}  # called before the confirm
            self.app.send_own_task(
                self.name, signature.args, signature.kwargs, task_type=self, producer=producer, mandatory=True,
                argsrepr="(...)", kwargsrepr="{}",  # keep inputs out of the headers, as in the first message
                **signature.options,
            )  # fmt: skip
        if returned:
            raise returned[0]


def run(task: ContractTask, payload: Any) -> str:
    """Run the task of a message. Returns its outcome for the worker's main process.

    Raises Reject if the message must be dead-lettered, and SystemExit if this process receives SIGTERM. Any other
    exception is a defect of Sluice: the main process then also dead-letters the message.
    """
    request = task.request
    if request.called_directly or hasattr(request, "began_s"):
        _called_refused()
    request.began_s = time.time()
    logs.request_id.set(request.get("request_id"))
    logs.task_id.set(request.id)
    task.limits.note(request.id)
    answer = task.backend.begin(request.id, request.publish_id, request.began_s, request.get("owner"))
    if answer != "run":
        logs.write(log, logging.INFO, "skipped", task=task.name, reason=answer)
        return SKIPPED
    end = _call(task, request, payload)
    if end.state != SUCCESS and (ended := task.limits.end_descendants()):
        logs.write(log, logging.WARNING, "ended what the task had started", task=task.name, processes=ended)
    if end.state == RETRY:
        _retry(task, request, loads(end.meta))
        return RETRY
    if end.state == RETURNED:
        return _give_back(task, request, loads(end.meta))
    state: str = task.backend.end(request, end.state, end.meta)
    return state


def _call(task: ContractTask, request: Any, payload: Any) -> End:
    """Call the function within its limits, which also cover formatting its error: that runs the task's own code."""
    spec = task.spec
    max_bytes = spec.result_max_bytes or task.settings.result_max_bytes
    try:
        with task.limits.running(spec.soft_limit_s, spec.hard_limit_s):
            try:
                return End(SUCCESS, results.encode(_output(task, request, payload), max_bytes))
            except BaseException as exc:  # noqa: BLE001 - any exception is this task's end
                return _end_of(task, request, exc)
    except BaseException as exc:  # noqa: BLE001 - a limit or a cancel at the end of the block
        return _end_of(task, request, exc, chain=False)  # formatting the chained error may never return


def _output(task: ContractTask, request: Any, payload: Any) -> BaseModel:
    """Call the function; returns its output. Restores the process state that the end of the task depends on."""
    process, recursion_limit, fields = os.getpid(), sys.getrecursionlimit(), vars(request).copy()
    try:
        output = task.function(_input(task, payload), *task.function_settings)
    finally:
        if os.getpid() != process:  # a forked child that returned: the task belongs to its parent
            os._exit(os.EX_SOFTWARE)
        if sys.getrecursionlimit() < recursion_limit:  # a task in another thread may have raised it
            sys.setrecursionlimit(recursion_limit)
        # a task can change current_task.request, whose ids identify the record
        vars(request).update(fields)
        with suppress(Exception):
            logs.restore(log, backend.log)
    return task.spec.output.model_validate(output)


def _input(task: ContractTask, payload: Any) -> Input:
    """Validate the input. Raises _NotUnderstood: the API accepted it, so its model is of another version."""
    try:
        return read_input(task.spec.input, payload)
    except SoftTimeLimitExceeded:
        raise
    except Exception as exc:
        raise _NotUnderstood(failure_of(exc)) from exc


def _end_of(task: ContractTask, request: Any, exc: BaseException, *, chain: bool = True) -> End:
    """The end of a run that raised this error."""
    if terminate_handler_fired():
        # The signal raised SystemExit in the function; `exc` may be a later error of its clean-up. Celery would treat
        # an Exception as the task's failure.
        raise SystemExit from exc
    if task.limits.cancelled_by(exc):
        return End(REVOKED, "null")
    if is_a(exc, _NotUnderstood):
        return End(RETURNED, dumps(exc.args[0]))
    failure = failure_of(exc, task.spec.failure_message_max_chars or task.settings.failure_message_max)
    again = is_a(exc, task.retry_on) and not is_a(exc, results.ResultTooLarge)
    if again and request.retries < task.settings.retry_max:
        return End(RETRY, dumps(failure))
    exception = traceback_of(exc, chain=chain)
    logs.write(log, logging.ERROR, "failed", task=task.name, type=failure["type"], exception=exception)
    return End(FAILURE, dumps(failure))


def _give_back(task: ContractTask, request: Any, failure: dict[str, str]) -> str:
    """Undo `begin`; the main process then returns the message."""
    if task.backend.give_back(request) == "cancelled":
        return REVOKED
    reason = f"the worker's model refuses the input ({failure['type']}: {failure['message']})"
    raise Reject(failures.not_understood(reason), requeue=False)


def _retry(task: ContractTask, request: Any, failure: dict[str, str]) -> None:
    try:
        task.publish_retry(request)
    except Exception as exc:  # noqa: BLE001 - errors of kombu, amqp and sockets; the failure has the type
        raise Reject(failures.retry_refused(failure_of(exc), failure), requeue=False) from None
    logs.write(log, logging.INFO, "tried again later", task=task.name, retries=request.retries, error=failure["type"])
