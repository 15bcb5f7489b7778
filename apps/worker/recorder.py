"""The dead-letter recorder: `python -m apps.worker.recorder`. It ensures that no task stays STARTED for ever.

    dead --> end(FAILURE, reason) --> dead.parked (confirmed) --> ack

Each step waits for the previous one, without limit and without blocking heartbeats. A crash repeats the steps, and
`end` stores only once. Unreadable messages are parked as raw bytes.

The exception is a full dead.parked: parked messages that no operator processes must not stop the recording of FAILUREs
nor, when `dead` and the work queues become full too, the API. The client has its result; the parked copy is dropped,
logged and counted.
"""

import asyncio
import json
import logging
import signal
import time
from datetime import UTC, datetime

from aiormq.abc import AbstractChannel, DeliveredMessage
from aiormq.exceptions import AMQPError, ChannelInvalidStateError, DeliveryError
from pamqp.commands import Basic
from prometheus_client import Counter, start_http_server
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from apps import broker, logs, startup
from apps.amqp.address import addresses
from apps.availability import BROKER_UP, REDIS_UP
from apps.broker import Lost, Refused, losses
from apps.contract import failures, states, topology
from apps.contract.message import Raw
from apps.contract.queues import require_queues
from apps.contract.settings import RecorderSettings, load
from apps.health import HealthFiles
from apps.tasks import TASKS
from apps.worker import dead_letter_reader
from apps.worker.dead_letter_reader import DeadLetter
from apps.worker.redis_errors import ATTEMPTS, is_about_the_command

log = logging.getLogger(__name__)

DEAD_LETTERS = Counter("sluice_dead_letters", "Dead letters that were recorded, by reason", ["reason"])
PARKED = Counter("sluice_parked", "Dead letters that were published to dead.parked")
NOT_PARKED = Counter("sluice_not_parked", "Dead letters that were recorded and not kept, as dead.parked was full")
FAILURES = Counter(
    "sluice_recorder_failures",
    "Failed attempts by cause: broker (a connection that was lost or not made), redis (a command), message (a defect)",
    ["cause"],
)
# Present from the start: rate() would miss the first failure of a counter that appears with it.
for each in ("broker", "redis", "message"):
    FAILURES.labels(each)

# 1 would be enough for the rate of dead letters; 4 overlap their two round trips. A message has up to 16 MiB
# (topology.MESSAGE_MAX_BYTES), and is held twice while it is parked.
PREFETCH = 4
RETRY_S = 0.5
CONNECT_DEADLINE_S = 10.0
PARK_DEADLINE_S = 10.0
# dead.parked is considered full after it has refused messages for this time: a queue also refuses them while it elects
# a leader.
FULL_AFTER_S = 10.0
TOUCH_INTERVAL_S = 1.0
REDIS_PING_INTERVAL_S = 5.0
CLOSE_DEADLINE_S = 2.0


class Recorder:
    """Consumes `dead` until it is cancelled, and reconnects if necessary."""

    def __init__(self, settings: RecorderSettings) -> None:
        self.settings = settings
        self._health = HealthFiles(settings.liveness_file, settings.readiness_file)
        # No retries by redis-py, and short time-outs: this class retries without blocking heartbeats.
        self.redis = Redis.from_url(
            settings.celery_result_backend.get_secret_value(),
            socket_timeout=2,
            socket_connect_timeout=2,
            retry=Retry(NoBackoff(), 0),
            decode_responses=True,
        )
        # also while Redis is full: FAILUREs are small
        self._end = self.redis.register_script(states.END_WHEN_FULL)
        self._read = self.redis.register_script(states.READ)
        self._refused_since_s: float | None = None
        """The time of the first refusal by dead.parked since it last accepted a message, or None."""

    async def run(self) -> None:
        """Connect and consume repeatedly. Raises startup.Refused if a server refuses the credentials at the start."""
        self._health.unready()  # a killed container leaves the file in the pod's /tmp
        redis_url = self.settings.celery_result_backend.get_secret_value()
        await startup.check_redis(redis_url, ("EVAL", "return 1", 1, states.key("none")))
        while True:
            try:
                with losses():
                    await self._serve()
            except Lost as exc:
                FAILURES.labels("broker").inc()
                log.warning("broker away", extra={"fields": {"error": str(exc)}})
                if isinstance(exc, Refused) and not self._health.has_been_ready:
                    raise startup.broker_refused(self._hosts(), exc) from None
            BROKER_UP.set(0)
            self._health.unready()
            await asyncio.sleep(RETRY_S)

    async def watch_redis(self) -> None:
        """Update the gauge even when there are no dead letters."""
        while True:
            try:
                await self.redis.ping()
                REDIS_UP.set(1)
            except (RedisError, OSError):
                REDIS_UP.set(0)
            await asyncio.sleep(REDIS_PING_INTERVAL_S)

    def _hosts(self) -> str:
        urls = self.settings.celery_broker_url.get_secret_value()
        return ", ".join(each.host for each in addresses(urls))

    async def _serve(self) -> None:
        settings = self.settings
        connection = broker.connection(settings.celery_broker_url.get_secret_value(), settings.broker_heartbeat_s)
        ended = asyncio.Event()
        self._health.alive()  # at each attempt: nothing else touches the file during an outage of the broker
        try:
            async with asyncio.timeout(CONNECT_DEADLINE_S):
                await connection.connect()
                channel = await connection.channel(publisher_confirms=True, on_return_raises=True)

            async def on_message(message: DeliveredMessage) -> None:
                try:
                    await self._on_message(message)
                except (AMQPError, ChannelInvalidStateError, TimeoutError) as exc:
                    FAILURES.labels("broker").inc()
                    log.warning("broker away", extra={"fields": {"error": repr(exc)}})
                    ended.set()
                except Exception:  # the broker redelivers the message to the next connection
                    FAILURES.labels("message").inc()
                    log.exception("dead letter not recorded")
                    ended.set()

            channel.on_consumer_cancel_callbacks.add(lambda _: ended.set())
            async with asyncio.timeout(CONNECT_DEADLINE_S):
                await channel.basic_qos(prefetch_count=PREFETCH)
                await channel.basic_consume(topology.DEAD_QUEUE, on_message)
            self._health.ready()
            BROKER_UP.set(1)
            log.info("consuming", extra={"fields": {"queues": [topology.DEAD_QUEUE]}})
            while not (ended.is_set() or channel.is_closed or connection.is_closed):
                self._health.alive()
                await asyncio.sleep(TOUCH_INTERVAL_S)
        finally:
            await connection.close(timeout=CLOSE_DEADLINE_S)

    async def _on_message(self, message: DeliveredMessage) -> None:
        letter = dead_letter_reader.read(message)
        logs.task_id.set(letter.text("id"))
        logs.request_id.set(letter.text("request_id"))
        failure = letter.failure
        stored = await self._record(letter)
        # Do not park the message if another publish of the id is active, or if the task ended without a FAILURE.
        if letter.malformed or stored in {"stored", "FAILURE", "unreadable", "refused"}:
            await self._park(message, letter)
        await message.channel.basic_ack(message.delivery_tag or 0)
        reason = failure["type"] if failure["type"] in failures.TYPES else "other"
        DEAD_LETTERS.labels(reason).inc()
        about = {"type": failure["type"], "reason": failure["message"], "stored": stored}
        log.info("dead letter", extra={"fields": about})

    async def _record(self, letter: DeadLetter) -> str:
        """Store the FAILURE; waits while Redis is unreachable.

        Returns the answer of END, the state if it is already final, or "refused" if Redis will never accept it.
        """
        task_id = letter.text("id")
        if task_id is None:  # no client can query it: only park it
            return "stored"
        record_keys, settings = states.record_keys(task_id), self.settings
        arguments = record_keys.script_arguments(time.time(), settings.result_ttl_s, settings.record_ttl_s)
        arguments += [str(letter.text("publish_id")), "FAILURE", json.dumps(letter.failure)]
        refused = 0
        while True:
            try:
                answer: str = await self._end(
                    keys=record_keys.script_keys(task_id, letter.text("owner")), args=arguments
                )
                return answer if answer != "final" else await self._state(task_id)
            except (RedisError, OSError) as exc:
                FAILURES.labels("redis").inc()
                refused = refused + 1 if is_about_the_command(exc) else 0
                if refused >= ATTEMPTS:  # no record; the reason is parked with the message
                    log.error("failure not stored", extra={"fields": {"error": repr(exc)}})  # noqa: TRY400 - no defect
                    return "refused"
                log.warning("Redis away", extra={"fields": {"error": repr(exc)}})
                await asyncio.sleep(RETRY_S)

    async def _state(self, task_id: str) -> str:
        """The state of a task that has ended; PENDING if its result has expired."""
        record_keys = states.record_keys(task_id)
        keys: list[bytes | str] = [record_keys.record, record_keys.earlier, states.requeued_key(task_id)]
        return states.decode(await self._read(keys=keys)).state

    async def _park(self, message: DeliveredMessage, letter: DeadLetter) -> None:
        """Publish a copy to dead.parked. Waits while the queue has no binding; drops the copy if the queue is full."""
        while True:
            try:
                await _publish_parked(message.channel, letter.copy())
            except DeliveryError as exc:
                now_s = time.monotonic()
                self._refused_since_s = since_s = self._refused_since_s or now_s
                if isinstance(exc.frame, Basic.Nack) and now_s - since_s >= FULL_AFTER_S:
                    NOT_PARKED.inc()
                    about = {name: letter.text(name) for name in ("task", "owner")}
                    about |= {"type": letter.failure["type"], "reason": letter.failure["message"]}
                    log.error("not parked: dead.parked is full", extra={"fields": about})  # noqa: TRY400 - no traceback
                    return
                log.warning("dead letter not parked yet", extra={"fields": {"error": repr(exc)}})
                await asyncio.sleep(RETRY_S)
            else:
                self._refused_since_s = None
                PARKED.inc()
                return


async def _publish_parked(channel: AbstractChannel, copy: Raw) -> None:
    properties = Basic.Properties(
        headers=copy.headers,
        delivery_mode=2,
        timestamp=datetime.now(UTC),  # shown by the commands as `died`
    )
    await channel.basic_publish(
        copy.body,
        exchange=topology.EXCHANGE,
        routing_key=topology.PARKED_QUEUE,
        mandatory=True,
        timeout=PARK_DEADLINE_S,
        properties=properties,
    )


async def main() -> None:
    """Run until SIGTERM or SIGINT."""
    require_queues(TASKS)  # as in the API and the worker: no process of such a release starts
    settings = load(RecorderSettings)
    logs.configure(settings.log_level)
    if settings.metrics_port:
        start_http_server(settings.metrics_port, addr=settings.metrics_host)
    recorder = Recorder(settings)
    recording = asyncio.create_task(recorder.run())
    watching = asyncio.create_task(recorder.watch_redis())
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, recording.cancel)
    await asyncio.wait([recording])
    watching.cancel()
    try:
        if not recording.cancelled():
            recording.result()  # raise a defect, so that the process is restarted
    except startup.Refused as exc:
        raise SystemExit(str(exc)) from None


if __name__ == "__main__":
    asyncio.run(main())
