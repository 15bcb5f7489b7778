"""Addresses and credentials of a broker's nodes, from `amqp[s]://user:password@host:port/vhost`, separated by ";"."""

from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit

PORTS = {"amqp": 5672, "amqps": 5671}


@dataclass(frozen=True)
class Address:
    """One node of a broker."""

    host: str
    port: int
    user: str
    password: str = field(repr=False)
    vhost: str
    tls: bool


def addresses(urls: str) -> list[Address]:
    """The nodes in the order of the URLs. An empty vhost means "/", as in Celery."""
    return [_address(url) for url in urls.split(";")]


def _address(url: str) -> Address:
    parts = urlsplit(url)
    return Address(
        host=parts.hostname or "localhost",
        port=parts.port or PORTS[parts.scheme],
        user=unquote(parts.username or ""),
        password=unquote(parts.password or ""),
        vhost=unquote(parts.path[1:]) or "/",
        tls=parts.scheme == "amqps",
    )
