"""A client of a broker's management API that needs only the standard library.

OSError         the management API does not answer
└── Refused     the management API answered with an HTTP error
"""

import base64
import http.client
import json
from dataclasses import dataclass, field
from typing import Any

from ops.command import Unusable


class Refused(OSError):
    """The management API answered with the HTTP error `status`."""

    def __init__(self, status: int, path: str, text: str) -> None:
        super().__init__(f"{path} answered {status}: {text}")
        self.status = status


@dataclass(frozen=True)
class Management:
    """The management API of one broker, used as one user. Call an instance: `management("/api/overview")`."""

    url: str
    user: str
    password: str = field(repr=False)
    deadline_s: float = 10.0

    def __call__(self, path: str, method: str = "GET", body: object = None) -> Any:
        """Send a request, and return the decoded JSON answer, or None if the answer is empty.

        Raises Refused if the answer is an HTTP error, and another OSError if there is no answer.
        """
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
        """The version of the broker, for example (3, 10, 8)."""
        text: str = self("/api/overview")["rabbitmq_version"]
        return tuple(int(part) for part in text.split("-", maxsplit=1)[0].split(".")[:3])

    def answers(self) -> bool:
        """Whether the API answers with success. Raises Unusable if it refuses the password."""
        try:
            self("/api/overview")  # the last resource that becomes available after a start of RabbitMQ 4.3
        except Refused as exc:
            if exc.status == http.client.UNAUTHORIZED:
                raise Unusable(
                    "RabbitMQ's data was created with other credentials: restore .local/credentials.env, or delete "
                    "the data (.local/rabbitmq, or the volume of docker compose)."
                ) from exc
            return False
        except OSError:
            return False
        return True

    def _headers(self) -> dict[str, str]:
        token = base64.b64encode(f"{self.user}:{self.password}".encode()).decode()
        return {"Authorization": f"Basic {token}", "Content-Type": "application/json"}
