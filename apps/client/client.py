"""Blocking (`Client`) and asyncio (`AsyncClient`) clients, which run the rules of `apps.client.rules` with httpx."""

import asyncio
import ssl
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from ipaddress import ip_address
from typing import Any, Self, TypeVar
from uuid import uuid4

import httpx

from apps.client import rules
from apps.client.rules import Call, Outcome, ReadLine, Reply, Rule, Sleep, Step, Task

T = TypeVar("T")

DEADLINE_S = 30.0
CONNECT_TIMEOUT_S = 5.0
Inputs = Mapping[str, Any]
# Options of httpx's client that belong to its transport.
_OF_TRANSPORT = {"verify", "cert", "trust_env", "http1", "http2", "limits"}


class Client:
    """A blocking client of one API. `key` is the bearer key, empty without authentication; `options` are httpx's.

    `host` is the Host header, for a URL with the address of an ingress instead of its host name. A proxy from the
    environment is used for a remote API, but not for one on this machine.

    Raises ValueError for a key that is not visible ASCII. The methods raise httpx's errors for an invalid URL.
    """

    def __init__(self, url: str, key: str, *, host: str = "", **options: Any) -> None:
        self._http = httpx.Client(
            base_url=url, headers=_headers(key, host), **_direct(url, httpx.HTTPTransport, options)
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def submit(
        self, inputs: Inputs | str, *, key: str | None = None, idempotent: bool = True, deadline_s: float = DEADLINE_S
    ) -> str:
        """Post a task, such as `{"task": "resize", "path": "cat.png"}`; returns its id when it is accepted.

        A string is sent unchanged, for example to preserve the spelling of numbers in JSON.

        The request is retried until the deadline with one Idempotency-Key: `key`, or a new one. With
        `idempotent=False` it has no key: it then does not need Redis, and is not retried if it may have been accepted.
        Raises Problem if the task was not accepted, and OutcomeUnknown if it may have been.
        """
        return self._run(rules.submit(inputs, _key(key) if idempotent else None, deadline_s))

    def submit_batch(
        self, inputs: Sequence[Inputs], *, key: str | None = None, deadline_s: float = DEADLINE_S
    ) -> list[Outcome]:
        """Post up to 1,000 inputs, each with its `task`; returns the id or the error of each, in order.

        Raises like `submit` if no answer has outcomes of the inputs.
        """
        return self._run(rules.submit_batch(inputs, _key(key), deadline_s))

    def result(self, task_id: str, timeout_s: float) -> Task:
        """Wait for the end of a task. Raises TimedOut, or Problem for an unknown or expired id."""
        return self._run(rules.result(task_id, timeout_s))

    def stream(self, task_id: str, timeout_s: float) -> Iterator[Task]:
        """Yield the task in each of its states. Raises like `result`."""
        rule = rules.stream(task_id, timeout_s)
        opened: list[httpx.Response] = []
        try:
            step = next(rule)
            while True:
                if isinstance(step, Task):
                    yield step
                    step = next(rule)
                else:
                    step = rule.send(self._do(step, opened))
        except StopIteration:
            return
        finally:
            for response in opened:
                response.close()

    def cancel(self, task_id: str, *, deadline_s: float = DEADLINE_S) -> Task:
        """Cancel a task; returns it as REVOKED, STARTED (asked to end), or with an earlier final state.

        Raises Problem, or OutcomeUnknown if there was no definite answer in time.
        """
        return self._run(rules.cancel(task_id, deadline_s))

    def _run(self, rule: Rule[T]) -> T:
        reply: Any = None
        while True:
            try:
                step = rule.send(reply)
            except StopIteration as stop:
                value: T = stop.value
                return value
            assert not isinstance(step, Task)  # noqa: S101 - only a stream yields those
            reply = self._do(step, [])

    def _do(self, step: Step, opened: list[httpx.Response]) -> Any:
        if isinstance(step, Sleep):
            return time.sleep(step.seconds)
        try:
            if isinstance(step, ReadLine):
                return next(step.reply.lines, None)
            response = self._http.send(_request(self._http, step), stream=step.stream)
            if not step.stream:
                return _reply(response)
            while opened:
                opened.pop().close()
            opened.append(response)
            if response.status_code != httpx.codes.OK:
                response.read()
                return _reply(response)
            return Reply(200, lines=response.iter_lines())
        except httpx.TransportError as exc:
            return _lost(step, exc)


class AsyncClient:
    """Like `Client`, for asyncio."""

    def __init__(self, url: str, key: str, *, host: str = "", **options: Any) -> None:
        self._http = httpx.AsyncClient(
            base_url=url, headers=_headers(key, host), **_direct(url, httpx.AsyncHTTPTransport, options)
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._http.aclose()

    async def submit(
        self, inputs: Inputs | str, *, key: str | None = None, idempotent: bool = True, deadline_s: float = DEADLINE_S
    ) -> str:
        """See `Client.submit`."""
        return await self._run(rules.submit(inputs, _key(key) if idempotent else None, deadline_s))

    async def submit_batch(
        self, inputs: Sequence[Inputs], *, key: str | None = None, deadline_s: float = DEADLINE_S
    ) -> list[Outcome]:
        """See `Client.submit_batch`."""
        return await self._run(rules.submit_batch(inputs, _key(key), deadline_s))

    async def result(self, task_id: str, timeout_s: float) -> Task:
        """See `Client.result`."""
        return await self._run(rules.result(task_id, timeout_s))

    async def stream(self, task_id: str, timeout_s: float) -> AsyncIterator[Task]:
        """See `Client.stream`."""
        rule = rules.stream(task_id, timeout_s)
        opened: list[httpx.Response] = []
        try:
            step = next(rule)
            while True:
                if isinstance(step, Task):
                    yield step
                    step = next(rule)
                else:
                    step = rule.send(await self._do(step, opened))
        except StopIteration:
            return
        finally:
            for response in opened:
                await response.aclose()

    async def cancel(self, task_id: str, *, deadline_s: float = DEADLINE_S) -> Task:
        """See `Client.cancel`."""
        return await self._run(rules.cancel(task_id, deadline_s))

    async def _run(self, rule: Rule[T]) -> T:
        reply: Any = None
        while True:
            try:
                step = rule.send(reply)
            except StopIteration as stop:
                value: T = stop.value
                return value
            assert not isinstance(step, Task)  # noqa: S101 - only a stream yields those
            reply = await self._do(step, [])

    async def _do(self, step: Step, opened: list[httpx.Response]) -> Any:
        if isinstance(step, Sleep):
            return await asyncio.sleep(step.seconds)
        try:
            if isinstance(step, ReadLine):
                return await anext(step.reply.lines, None)
            response = await self._http.send(_request(self._http, step), stream=step.stream)
            if not step.stream:
                return _reply(response)
            while opened:
                await opened.pop().aclose()
            opened.append(response)
            if response.status_code != httpx.codes.OK:
                await response.aread()
                return _reply(response)
            return Reply(200, lines=response.aiter_lines())
        except httpx.TransportError as exc:
            return _lost(step, exc)


def _key(given: str | None) -> str:
    return given or uuid4().hex


def _headers(key: str, host: str) -> dict[str, str]:
    if not (key.isascii() and key.isprintable()) or " " in key:
        raise ValueError("a bearer key has visible ASCII characters only")
    return ({"Authorization": f"Bearer {key}"} if key else {}) | ({"Host": host} if host else {})


def _direct(
    url: str, transport: type[httpx.HTTPTransport | httpx.AsyncHTTPTransport], options: dict[str, Any]
) -> dict[str, Any]:
    """The options of a client. For an API on this machine they include a transport, which disables proxies.

    `trust_env=False` would also ignore SSL_CERT_FILE.
    """
    if options.keys() & {"transport", "proxy", "mounts"} or not _is_loopback(httpx.URL(url).host):
        return options
    of_transport = {name: value for name, value in options.items() if name in _OF_TRANSPORT}
    others = {name: value for name, value in options.items() if name not in of_transport}
    return others | {"transport": transport(**of_transport)}


def _is_loopback(host: str) -> bool:
    host = host.removesuffix(".")  # the final dot of an absolute name
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        address = ip_address(host)
    except ValueError:
        return False
    address = getattr(address, "ipv4_mapped", None) or address
    return address.is_loopback or address.is_unspecified


def _request(http: httpx.Client | httpx.AsyncClient, call: Call) -> httpx.Request:
    timeout = httpx.Timeout(call.timeout_s, connect=min(CONNECT_TIMEOUT_S, call.timeout_s))
    return http.build_request(call.method, call.path, headers=call.headers, content=call.body, timeout=timeout)


def _reply(response: httpx.Response) -> Reply:
    return Reply(response.status_code, dict(response.headers), response.content)


def _is_untrusted(exc: BaseException | None) -> bool:
    """Whether the TLS handshake failed, for example because of the certificate: no key was sent."""
    seen: list[BaseException] = []
    while exc is not None and not isinstance(exc, ssl.SSLError):
        seen.append(exc)
        exc = exc.__cause__ or exc.__context__
        if exc in seen:  # a library may have created a cycle of causes
            return False
    return exc is not None and not isinstance(exc, ssl.SSLEOFError | ssl.SSLZeroReturnError)


def _lost(step: Call | ReadLine, exc: httpx.TransportError) -> Reply | None:
    if isinstance(exc, httpx.UnsupportedProtocol | httpx.LocalProtocolError) or _is_untrusted(exc):
        raise exc  # a wrong URL, or an untrusted server: a retry cannot help
    if isinstance(step, ReadLine):
        return None
    # without a connection nothing was sent
    unsent = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)
    return Reply(0, sent=not isinstance(exc, unsent))
