"""Every setting, read from the environment once, when a process starts. None has a built-in credential."""

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

# Passwords that ship with servers and examples; starting on one is starting without.
_DEFAULT_PASSWORDS = frozenset({"guest", "rabbitmq", "redis", "password", "changeme", "admin"})
# Names of URL parameters that change TLS in aiormq, kombu, Celery or redis-py; and those of Redis that all parts read
# in the same way, each with its only allowed value (None: any).
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
        raise ValueError("it has no password: clients would take the one that everyone knows")
    if unquote(parts.password or "") in _DEFAULT_PASSWORDS:
        raise ValueError("its password is one that everyone knows; use another")
    return url


def _verified(url: SecretStr, allowed: Mapping[str, str | None]) -> None:
    """Refuse parameters by which a library would not verify the server's certificate and name, or others would not."""
    for name, value in parse_qsl(urlsplit(url.get_secret_value()).query, keep_blank_values=True):
        if _OF_TLS.search(name) and allowed.get(name, "") not in {None, value}:
            raise ValueError(
                f"its parameter {name}={value} is refused: every part verifies the server's certificate and host name; "
                "leave it out, and name a CA of your own by SSL_CERT_FILE"
            )


def _broker_url(urls: SecretStr) -> SecretStr:
    for url in urls.get_secret_value().split(";"):  # one for each host, as Celery reads it
        _verified(_checked(SecretStr(url), "amqp", "amqps", needs_password=True), {})
    return urls


def _redis_url(url: SecretStr) -> SecretStr:
    _verified(_checked(url, "redis", "rediss", needs_password=False), _REDIS_TLS)
    return url


BrokerUrl = Annotated[SecretStr, AfterValidator(_broker_url)]
RedisUrl = Annotated[SecretStr, AfterValidator(_redis_url)]


class Settings(BaseSettings):
    """What every process needs."""

    model_config = SettingsConfigDict(frozen=True, hide_input_in_errors=True, extra="ignore")

    celery_broker_url: BrokerUrl
    celery_result_backend: RedisUrl
    # Promise 2: a result can be read for at least 24 h; the extra hour is for clocks that differ.
    result_ttl_s: Annotated[int, Field(ge=60)] = 25 * 3600
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"

    @property
    def record_ttl_s(self) -> int:
        """How long a record lives after its last change, and how old an id without one is when it is forgotten.

        Longer than a message can wait: a younger id without a record has not begun.
        """
        return MESSAGE_TTL_S + self.result_ttl_s

    @property
    def key_ttl_s(self) -> int:
        """How long an Idempotency-Key is remembered from its first use: 24 h where a result lives 25.

        The difference is for clocks that differ, and for the recorder: a task that was published in the last moment of
        its key, and that then waits as long as a message may, must not be taken for forgotten.
        """
        return self.result_ttl_s * 24 // 25


class ApiSettings(Settings):
    """What the API needs besides."""

    task_id_key: Secret
    # a client's tasks belong to its name, so that its key can be changed; apps/contract/keys.py has the forms
    api_keys: Annotated[tuple[ApiKey, ...], NoDecode] = ()
    api_keys_file: Annotated[str, Field(min_length=1)] | None = None
    auth_disabled: bool = False
    # of a client without a quota of its own. Accepted tasks per second: as many as NGINX lets one address request
    quota_tasks_per_s: TasksPerS = 100
    # and tasks that wait or run at once: a tenth of what a queue takes, so that no client can fill it
    quota_open_tasks: OpenTasks = MAX_LENGTH_MESSAGES // 10
    # of one process; a stream takes 16 KiB, so all of them 32 MiB
    streams_max: Annotated[int, Field(ge=1)] = 2000
    # a quarter: three others always find room
    streams_per_client_max: Annotated[int, Field(ge=1)] = 500
    # a client opens it again where it was; a stream of a task that never ends is not held for ever
    stream_max_s: Annotated[float, Field(gt=0)] = 3600.0
    publish_deadline_s: Annotated[float, Field(gt=0, le=60)] = 2.0
    # more than the broker takes in at once only wait: a window of 1,000 already costs a third of the rate
    publish_in_flight_max: Annotated[int, Field(ge=1)] = 1000
    # below the 60 s after which NGINX gives up on an answer
    wait_max_s: Annotated[float, Field(ge=0, le=55)] = 25.0
    body_max_bytes: Annotated[int, Field(ge=1024)] = 1024 * 1024
    broker_heartbeat_s: Annotated[int, Field(ge=1)] = 10
    # of Redis' maxmemory: above it posts are refused. The rest is for the results of what was accepted before: a tenth
    # of 384 MiB holds those of 100,000 of the example tasks
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
                "API_KEYS is empty: set name:key[,name:key...], or the path API_KEYS_FILE, or say AUTH_DISABLED=true"
            )
        return self

    @model_validator(mode="after")
    def _shared_streams(self) -> Self:
        if self.streams_per_client_max > self.streams_max:
            raise ValueError("STREAMS_PER_CLIENT_MAX is above STREAMS_MAX: it would limit no client")
        return self


class ConsumerSettings(Settings):
    """What whoever consumes from the broker needs besides."""

    # a dead network is found after two or three of them
    broker_heartbeat_s: Annotated[int, Field(ge=1)] = 10
    liveness_file: str | None = None
    readiness_file: str | None = None
    metrics_port: int | None = None
    metrics_host: str = "127.0.0.1"


class WorkerSettings(ConsumerSettings):
    """What the worker needs besides."""

    worker_pool: Literal["prefork", "threads"] = "prefork"
    # prefork 1 as the original: one pod, one task; threads for tasks that mostly wait
    worker_concurrency: Annotated[int, Field(ge=1)] = 1
    # messages of each queue that are held for a process or thread, the running one included. What waits here for
    # longer than 0.2 s is handed back, and is charged by the delivery limit when its neighbour ends the pod: more is
    # for tasks of milliseconds
    worker_prefetch: Annotated[int, Field(ge=1)] = 1
    # a child above it is replaced after its task; half of the pod's 1 GiB, so that one leak cannot end the pod
    worker_max_memory_mib: Annotated[int, Field(ge=64)] = 512
    # as large as the largest body: who may send a MiB may be answered one
    result_max_bytes: Annotated[int, Field(ge=1024, le=CEILING_BYTES)] = 1024 * 1024
    # in characters
    failure_message_max: Annotated[
        int, Field(ge=FAILURE_MESSAGE_BOUNDS_CHARS[0], le=FAILURE_MESSAGE_BOUNDS_CHARS[1])
    ] = FAILURE_MESSAGE_MAX_CHARS
    # how long a SIGTERM waits for running tasks before it hands them back; below the grace period
    soft_shutdown_s: Annotated[float, Field(ge=0)] = 100.0
    # retry n of a transient error, counted from 0, waits anywhere from 0 to retry_backoff_s * 2**n seconds
    retry_max: Annotated[int, Field(ge=0)] = 5
    retry_backoff_s: Annotated[int, Field(ge=1)] = 1
    retry_backoff_max_s: Annotated[int, Field(ge=1)] = 600
    # how long a task that this version does not understand is returned for workers of another one, from its first
    # return on: a rollout takes minutes, and a person who finds a half of it stuck has the rest of an hour to go on or
    # back. The last return may wait a day in its queue: the sum stays below the life of a record. 0: not at all
    return_max_s: Annotated[float, Field(ge=0, le=3600)] = 3600.0


class RecorderSettings(ConsumerSettings):
    """What the dead-letter recorder needs: nothing besides."""


class RequeueSettings(Settings):
    """What sending a parked task again needs besides: the key of new ids."""

    task_id_key: Secret


S = TypeVar("S", bound=BaseSettings)


def load(kind: type[S], environment: Mapping[str, str] | None = None) -> S:
    """Read settings from the process's environment, or from the one given.

    Raises SystemExit with a sentence for each key that is missing or wrong; it never shows a value.
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
