"""Methods and paths as RFC 9110 and RFC 3986 define them, decided before FastAPI's routing.

- HEAD is allowed where GET is. It is answered with the headers of GET, and its body is never made.
- OPTIONS is answered with the methods of the path, `OPTIONS *` with those that any path has.
- Any other method that the path does not have is answered with 405; `Allow` lists those it has.
- A path is compared as it was sent. There is no redirect: a trailing slash makes another path, which is answered with
  404. So does `%2F`, which is not the separator `/`.
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
    """Lets a request through to the app if its path has the request's method."""

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
        """The methods of the request's path; none if there is nothing at this path."""
        if b"%2f" in scope["raw_path"].lower():
            return frozenset()
        literal, patterns = self._resources
        path = scope["path"]
        if path == "*" and scope["method"] == "OPTIONS":  # the server as a whole; no other method has this target
            return frozenset().union(*literal.values(), *patterns.values())
        if path in literal:  # not what a pattern allows for it: /tasks/batch is no task
            return literal[path]
        return next((allowed for pattern, allowed in patterns.items() if pattern.fullmatch(path)), frozenset())

    @cached_property
    def _resources(self) -> tuple[dict[str, frozenset[str]], dict[re.Pattern[str], frozenset[str]]]:
        """Path -> methods, of the paths without parameters and of those with some."""
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
        """End the request at the headers: a stream of events would go on until its task ends."""

        async def send_headers(message: Message) -> None:
            await send(message)
            await send({"type": "http.response.body"})
            raise _HeadersSent

        with suppress(_HeadersSent):
            await self._app({**scope, "method": "GET"}, receive, send_headers)


class _HeadersSent(Exception):
    """The answer to a HEAD is complete."""
