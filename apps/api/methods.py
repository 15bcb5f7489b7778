"""Methods and paths as defined by RFC 9110 and RFC 3986, checked before FastAPI's routing.

- HEAD is allowed if GET is. The answer has the headers of GET, and the body is not produced.
- OPTIONS returns the methods of the path, and `OPTIONS *` the methods of all paths.
- Any other unsupported method is answered with 405; `Allow` lists the supported ones.
- Paths are compared without normalization, and there are no redirects: a path with a trailing slash, or with `%2F`
  instead of `/`, is a different path, and is answered with 404.
"""

import re
from collections.abc import Sequence
from contextlib import suppress
from functools import cached_property

from fastapi.routing import iter_route_contexts
from starlette.responses import Response
from starlette.routing import BaseRoute
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from apps.api import errors


class Methods:
    """Forwards a request to the app if its path supports the method."""

    def __init__(self, app: ASGIApp, routes: Sequence[BaseRoute]) -> None:
        self._app = app
        self._routes = routes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        method, allowed = scope["method"], self._allowed(scope)
        if not allowed:
            await errors.response(errors.no_such_path())(scope, receive, send)
        elif method == "OPTIONS":
            await Response(status_code=204, headers={"Allow": errors.allow(allowed)})(scope, receive, send)
        elif method not in allowed:
            await errors.response(errors.method_not_allowed(allowed))(scope, receive, send)
        elif method == "HEAD":
            await self._head(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    def _allowed(self, scope: Scope) -> frozenset[str]:
        """The methods of the request's path; empty if the path does not exist."""
        if b"%2f" in scope["raw_path"].lower():
            return frozenset()
        literal, patterns = self._resources
        path = scope["path"]
        if path == "*" and scope["method"] == "OPTIONS":  # the whole server; only OPTIONS has this target
            return frozenset().union(*literal.values(), *patterns.values())
        if path in literal:  # before patterns: /tasks/batch is not a task
            return literal[path]
        return next((allowed for pattern, allowed in patterns.items() if pattern.fullmatch(path)), frozenset())

    @cached_property
    def _resources(self) -> tuple[dict[str, frozenset[str]], dict[re.Pattern[str], frozenset[str]]]:
        """Path -> methods, for paths without parameters, and for paths with parameters."""
        literal: dict[str, frozenset[str]] = {}
        patterns: dict[re.Pattern[str], frozenset[str]] = {}
        for route in iter_route_contexts(self._routes):
            methods = frozenset(route.methods or ()) | {"OPTIONS"}
            if "GET" in methods:
                methods |= {"HEAD"}
            if "{" in str(route.path):
                patterns[route.path_regex] = patterns.get(route.path_regex, frozenset()) | methods
            else:
                literal[str(route.path)] = literal.get(str(route.path), frozenset()) | methods
        return literal, patterns

    async def _head(self, scope: Scope, receive: Receive, send: Send) -> None:
        """End the request after the headers: an event stream would continue until the task ends."""

        async def send_headers(message: Message) -> None:
            await send(message)
            await send({"type": "http.response.body"})
            raise _HeadersSent

        with suppress(_HeadersSent):
            await self._app({**scope, "method": "GET"}, receive, send_headers)


class _HeadersSent(Exception):
    """The answer to a HEAD is complete."""
