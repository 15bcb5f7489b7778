"""Broker addresses are parsed like Celery parses them."""

import pytest
from kombu.utils.url import parse_url

from apps.amqp.address import addresses


@pytest.mark.parametrize(
    "url",
    [
        "amqp://user:pass@host:1234/vhost",
        "amqp://u%40x:p%2F%3A%3B@host.example:5672/%2F",
        "amqp://user:pass@host:1/a%2Fb",
        "amqps://user:pass@[::1]:5671/v",
    ],
)
def test_address_is_parsed_as_by_kombu(url: str) -> None:
    (ours,) = addresses(url)
    theirs = parse_url(url)
    assert (ours.host, ours.port, ours.user, ours.password, ours.vhost) == tuple(
        theirs[name] for name in ("hostname", "port", "userid", "password", "virtual_host")
    )
    assert ours.tls == url.startswith("amqps")


def test_missing_parts_get_the_defaults_of_amqp() -> None:
    plain, tls = addresses("amqp://u:p@one;amqps://u:p@two/")
    assert (plain.host, plain.port, plain.vhost) == ("one", 5672, "/")
    assert (tls.host, tls.port, tls.vhost) == ("two", 5671, "/")


def test_password_is_not_shown() -> None:
    assert "secret" not in repr(addresses("amqp://u:secret@h"))
