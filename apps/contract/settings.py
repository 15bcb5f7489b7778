"""All settings, read from the environment once at the start of a process. No credential has a default."""

import re
from collections.abc import Mapping
from typing import Annotated, Literal, Self, TypeVar
from urllib.parse import parse_qsl, unquote, urlsplit

from pydantic import AfterValidator, Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from apps.contract import keys
from apps.contract.keys import ApiKey, OpenTasks, Secret, TasksPerS
from apps.contract.results import CEILING_BYTES
from apps.contract.states import FAILURE_MESSAGE_BOUNDS_CHARS, FAILURE_MESSAGE_MAX_CHARS
from apps.contract.topology import MAX_LENGTH_MESSAGES, MESSAGE_TTL_S

# Default limit of a body and of a result: a client that may send 1 MiB may also receive 1 MiB.
JSON_MAX_BYTES = 1024 * 1024
# Default passwords of servers and examples, which are as good as no password.
_DEFAULT_PASSWORDS = frozenset({"guest", "rabbitmq", "redis", "password", "changeme", "admin"})
# URL parameters that change TLS in aiormq, kombu, Celery or redis-py; and the allowed ones of Redis, which all its
# clients read in the same way, each with its only allowed value (None: any).
_OF_TLS = re.compile(r"ssl|verify|^c(a|ert)|^key")
_REDIS_TLS = {"ssl_cert_reqs": "required", "ssl_ca_certs": None, "ssl_certfile": None, "ssl_keyfile": None}


def _checked(url: SecretStr, *schemes: str, needs_password: bool) -> SecretStr:
    form = f"it must read {schemes[0]}://user:password@host:port/..., special characters in it percent-encoded"
    try:
        parts = urlsplit(url.get_secret_value())
        complete = parts.scheme in schemes and parts.hostname and (parts.port or True)
    except ValueError:
        complete = False
    if not complete:
        raise ValueError(form)
    if needs_password and not parts.password:
        raise ValueError("it has no password: clients would use the well-known default; set one")
    if unquote(parts.password or "") in _DEFAULT_PASSWORDS:
        raise ValueError("its password is a well-known default; use another one")
    return url


def _verified(url: SecretStr, allowed: Mapping[str, str | None]) -> None:
    """Refuse parameters that stop any of the libraries from verifying the server's certificate and host name."""
    for name, value in parse_qsl(urlsplit(url.get_secret_value()).query, keep_blank_values=True):
        if _OF_TLS.search(name) and allowed.get(name, "") not in {None, value}:
            raise ValueError(
                f"its parameter {name}={value} is refused: every part verifies the server's certificate and host name; "
                "leave it out, and name a CA of your own by SSL_CERT_FILE"
            )


def _broker_url(urls: SecretStr) -> SecretStr:
    for url in urls.get_secret_value().split(";"):  # a URL per host, as in Celery
        _verified(_checked(SecretStr(url), "amqp", "amqps", needs_password=True), {})
    return urls


def _redis_url(url: SecretStr) -> SecretStr:
    _verified(_checked(url, "redis", "rediss", needs_password=False), _REDIS_TLS)
    return url


BrokerUrl = Annotated[SecretStr, AfterValidator(_broker_url)]
RedisUrl = Annotated[SecretStr, AfterValidator(_redis_url)]


class Settings(BaseSettings):
    """Settings of every process."""

    model_config = SettingsConfigDict(frozen=True, hide_input_in_errors=True, extra="ignore")

    celery_broker_url: BrokerUrl
    celery_result_backend: RedisUrl
    # Promise 2: a result can be read for at least 24 h. The 25th hour allows for clock differences.
    result_ttl_s: Annotated[int, Field(ge=60)] = 25 * 3600
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"

    @property
    def record_ttl_s(self) -> int:
        """The life of a record after its last change, and the age at which an id without a record is forgotten.

        It is longer than a message can wait: a task with a younger id and no record has not begun.
        """
        return MESSAGE_TTL_S + self.result_ttl_s

    @property
    def key_ttl_s(self) -> int:
        """How long an Idempotency-Key is remembered after its first use: 24 h if results are kept for 25 h.

        The difference allows for clock differences and for the recorder: a task that is published just before its key
        expires, and then waits for the longest time that a message may, must not count as forgotten.
        """
        return self.result_ttl_s * 24 // 25


class ApiSettings(Settings):
    """Additional settings of the API."""

    task_id_key: Secret
    # tasks belong to a client's name: its key can be changed. apps/contract/keys.py describes the forms
    api_keys: Annotated[tuple[ApiKey, ...], NoDecode] = ()
    api_keys_file: Annotated[str, Field(min_length=1)] | None = None
    auth_disabled: bool = False
    # default quota of a client, in accepted tasks per second: NGINX's limit of requests per address
    quota_tasks_per_s: TasksPerS = 100
    # default quota of waiting or running tasks: a tenth of a queue's maximum length, so no client can fill the queue
    quota_open_tasks: OpenTasks = MAX_LENGTH_MESSAGES // 10
    # event streams per process: 16 KiB each, 32 MiB in all
    streams_max: Annotated[int, Field(ge=1)] = 2000
    # a quarter of STREAMS_MAX leaves room for three other clients
    streams_per_client_max: Annotated[int, Field(ge=1)] = 500
    # a client resumes a stream that ended; a task that never ends does not hold its stream for ever
    stream_max_s: Annotated[float, Field(gt=0)] = 3600.0
    publish_deadline_s: Annotated[float, Field(gt=0, le=60)] = 2.0
    # more would only wait for the broker: a window of 1,000 already costs a third of the rate
    publish_in_flight_max: Annotated[int, Field(ge=1)] = 1000
    # below the 60 s after which NGINX times out
    wait_max_s: Annotated[float, Field(ge=0, le=55)] = 25.0
    body_max_bytes: Annotated[int, Field(ge=1024)] = JSON_MAX_BYTES
    broker_heartbeat_s: Annotated[int, Field(ge=1)] = 10
    # share of Redis' maxmemory above which posts are refused. The rest is for the results of tasks already accepted:
    # a tenth of 384 MiB holds the results of 100,000 example tasks
    results_full_share: Annotated[float, Field(gt=0, le=1)] = 0.9

    @field_validator("api_keys", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return keys.parse(value) if isinstance(value, str) else value

    @model_validator(mode="after")
    def _authenticated(self) -> Self:
        if self.api_keys and self.api_keys_file:
            raise ValueError("API_KEYS and API_KEYS_FILE are both set: give all keys in one of them")
        if not (self.api_keys or self.api_keys_file or self.auth_disabled):
            raise ValueError(
                "API_KEYS is empty: set name:key[,name:key...], or the path API_KEYS_FILE, or set AUTH_DISABLED=true"
            )
        return self

    @model_validator(mode="after")
    def _shared_streams(self) -> Self:
        if self.streams_per_client_max > self.streams_max:
            raise ValueError("STREAMS_PER_CLIENT_MAX is above STREAMS_MAX: it would limit no client")
        return self


class ConsumerSettings(Settings):
    """Additional settings of all consumers."""

    # a dead network is detected after two or three heartbeats
    broker_heartbeat_s: Annotated[int, Field(ge=1)] = 10
    liveness_file: str | None = None
    readiness_file: str | None = None
    metrics_port: int | None = None
    metrics_host: str = "127.0.0.1"


class WorkerSettings(ConsumerSettings):
    """Additional settings of the worker."""

    worker_pool: Literal["prefork", "threads"] = "prefork"
    # prefork and 1 as in the original: one task per pod. Threads suit tasks that mostly wait
    worker_concurrency: Annotated[int, Field(ge=1)] = 1
    # messages per queue and per process or thread, including the running one. A message that waits here for longer than
    # 0.2 s is returned, and counts against the delivery limit if another task kills the pod: raise it only for tasks
    # of milliseconds
    worker_prefetch: Annotated[int, Field(ge=1)] = 1
    # a child process above it is replaced after its task; half of the pod's 1 GiB, so one leak cannot kill the pod
    worker_max_memory_mib: Annotated[int, Field(ge=64)] = 512
    result_max_bytes: Annotated[int, Field(ge=1024, le=CEILING_BYTES)] = JSON_MAX_BYTES
    # in characters
    failure_message_max: Annotated[
        int, Field(ge=FAILURE_MESSAGE_BOUNDS_CHARS[0], le=FAILURE_MESSAGE_BOUNDS_CHARS[1])
    ] = FAILURE_MESSAGE_MAX_CHARS
    # how long running tasks may continue after SIGTERM before they are returned; below the grace period
    soft_shutdown_s: Annotated[float, Field(ge=0)] = 100.0
    # retry n of a transient error, counted from 0, is delayed by a random time of 0 to retry_backoff_s * 2**n seconds
    retry_max: Annotated[int, Field(ge=0)] = 5
    retry_backoff_s: Annotated[int, Field(ge=1)] = 1
    retry_backoff_max_s: Annotated[int, Field(ge=1)] = 600
    # how long, from its first return, a task that this version does not understand is returned for workers of another
    # version. A rollout takes minutes; if it gets stuck, an hour is enough to complete it or roll it back. After the
    # last return the task may wait a day in its queue: the sum stays below the life of a record. 0: never returned
    return_max_s: Annotated[float, Field(ge=0, le=3600)] = 3600.0


class RecorderSettings(ConsumerSettings):
    """Settings of the dead-letter recorder."""


class RequeueSettings(Settings):
    """Additional settings of a requeue of parked tasks: the secret of task ids."""

    task_id_key: Secret


S = TypeVar("S", bound=BaseSettings)


def load(kind: type[S], environment: Mapping[str, str] | None = None) -> S:
    """Read settings from the process's environment, or from `environment`.

    Raises SystemExit with a sentence for each missing or invalid setting. Sentences never contain values.
    """
    try:
        if environment is None:
            return kind()
        return kind.model_validate({name.lower(): value for name, value in environment.items()})
    except ValidationError as exc:
        raise SystemExit("\n".join(_sentence(error["loc"], error["msg"]) for error in exc.errors())) from None


def _sentence(location: tuple[int | str, ...], message: str) -> str:
    if not location:
        return message.removeprefix("Value error, ")
    name = str(location[0]).upper()
    if message == "Field required":
        return f"{name} is not set: see docs/settings.md"
    return f"{name}: {message.removeprefix('Value error, ')}"
