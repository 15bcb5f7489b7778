"""A broker's management API, by the standard library alone.

OSError
└── Refused     it answered with an error: has the status
"""

import base64
import http.client
import json
from dataclasses import dataclass, field
from typing import Any

from ops.command import Unusable


class Refused(OSError):
    """The management API refused a request."""

    def __init__(self, status: int, path: str, text: str) -> None:
        super().__init__(f"{path} answered {status}: {text}")
        self.status = status


@dataclass(frozen=True)
class Management:
    """One broker's management API as one user. Call it with a path: `management("/api/overview")`."""

    url: str
    user: str
    password: str = field(repr=False)
    deadline_s: float = 10.0

    def __call__(self, path: str, method: str = "GET", body: object = None) -> Any:
        """The decoded answer, None if it was empty. Refused when it is an error, another OSError when none comes."""
        scheme, _, rest = self.url.rstrip("/").partition("://")
        host, _, prefix = rest.partition("/")
        connect = http.client.HTTPSConnection if scheme == "https" else http.client.HTTPConnection
        connection = connect(host, timeout=self.deadline_s)
        try:
            text = json.dumps(body) if body is not None else None
            connection.request(method, f"/{prefix}".rstrip("/") + path, text, self._headers())
            answer = connection.getresponse()
            content = answer.read()
        except http.client.HTTPException as exc:
            raise ConnectionError(f"{self.url} does not speak HTTP: {exc}") from exc
        finally:
            connection.close()
        if answer.status >= http.client.BAD_REQUEST:
            raise Refused(answer.status, path, content.decode(errors="replace")[:300])
        return json.loads(content) if content else None

    @property
    def version(self) -> tuple[int, ...]:
        """The broker's, as (3, 10, 8)."""
        text: str = self("/api/overview")["rabbitmq_version"]
        return tuple(int(part) for part in text.split("-", maxsplit=1)[0].split(".")[:3])

    def answers(self) -> bool:
        """Does it know us? False while it does not answer; Unusable when it does and refuses our password."""
        try:
            self("/api/overview")  # the last thing that answers after a start: 4.3 needs a while for it
        except Refused as exc:
            if exc.status == http.client.UNAUTHORIZED:
                raise Unusable(
                    "RabbitMQ's data was made with other credentials: bring back .local/credentials.env, or remove "
                    "the data (.local/rabbitmq, or the volume of docker compose)."
                ) from exc
            return False
        except OSError:
            return False
        return True

    def _headers(self) -> dict[str, str]:
        token = base64.b64encode(f"{self.user}:{self.password}".encode()).decode()
        return {"Authorization": f"Basic {token}", "Content-Type": "application/json"}
