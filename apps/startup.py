"""Checks at the start of a process: whether the broker and Redis accept its credentials.

If a server refuses them, the process exits with one sentence and a non-zero status: a rollout with a wrong password
stops at its first pod. An unreachable server does not end the process, as a restart would not help. After the start, a
refusal is retried and logged like any other outage.
"""

import asyncio
import ssl
import time
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError, NoPermissionError, RedisError

# How long a start waits for a server's first answer: as long as one attempt to connect to the broker may take.
DEADLINE_S = 5.0
RETRY_S = 0.2
TIMEOUT_S = 2.0


class Refused(Exception):
    """A server refuses the credentials. The message is a sentence with the setting's name, and never a password."""


def broker_refused(host: str, reason: BaseException) -> Refused:
    """The error for a refused login, a missing permission, a missing queue, or a failed TLS verification."""
    if failure := tls_failure(reason):
        return _untrusted("CELERY_BROKER_URL", "the broker", host, failure)
    if "NOT_FOUND" in str(reason):
        return Refused(
            f"CELERY_BROKER_URL: the broker at {host} lacks a queue ({reason}): load this project's definitions into it"
        )
    return Refused(f"CELERY_BROKER_URL: the broker at {host} refuses this user or password ({reason})")


def tls_failure(exc: BaseException | None) -> str | None:
    """Why a TLS handshake failed; None for any other error. Also searches the causes of a library's exception.

    Retrying helps neither against a wrong certificate nor against a server without TLS. A connection that merely ended
    is not a TLS failure.
    """
    seen: list[BaseException] = []
    while exc is not None and exc not in seen:  # aiormq raises exceptions with a cycle of causes
        seen.append(exc)
        if isinstance(exc, ssl.SSLCertVerificationError):
            return f"its certificate is refused: {exc.verify_message.rstrip('.')}"
        if isinstance(exc, ssl.SSLError) and not isinstance(exc, ssl.SSLEOFError | ssl.SSLZeroReturnError):
            return f"it does not speak TLS on this port ({exc.reason})"
        exc = exc.__cause__ or exc.__context__
    return None


def _untrusted(setting: str, server: str, host: str | None, failure: str) -> Refused:
    return Refused(
        f"{setting}: no password was sent to {server} at {host}, as {failure}; use a host name of its certificate, and "
        "SSL_CERT_FILE for a CA of your own"
    )


async def check_redis(url: str, *commands: Sequence[object]) -> None:
    """Check the user's permissions by running these commands, which must not change data.

    Returns when Redis has answered them, or was unreachable for DEADLINE_S. Raises Refused.
    """
    # no asyncio.timeout: on Python 3.11, redis-py may swallow its cancellation
    end_s = time.monotonic() + DEADLINE_S
    while True:
        if await _answers(url, commands) or time.monotonic() > end_s:
            return
        await asyncio.sleep(RETRY_S)


async def _answers(url: str, commands: Sequence[Sequence[object]]) -> bool:
    # RESP2: SUBSCRIBE has an ordinary answer
    options: dict[str, Any] = {
        "socket_timeout": TIMEOUT_S,
        "socket_connect_timeout": TIMEOUT_S,
        "retry": Retry(NoBackoff(), 0),
    }
    client = Redis.from_url(url, single_connection_client=True, protocol=2, **options)
    try:
        for command in commands:
            await client.execute_command(*command)  # type: ignore[no-untyped-call]
    except (AuthenticationError, NoPermissionError) as exc:
        raise Refused(
            f"CELERY_RESULT_BACKEND: Redis at {urlsplit(url).hostname} refuses this user or password ({exc})"
        ) from None
    except (RedisError, OSError) as exc:
        if failure := tls_failure(exc):
            raise _untrusted("CELERY_RESULT_BACKEND", "Redis", urlsplit(url).hostname, failure) from None
        return False
    finally:
        await client.aclose()
    return True
