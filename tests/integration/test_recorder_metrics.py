"""What Prometheus learns from the recorder: what it recorded and why, what failed, and whether its servers answer."""

import urllib.request
from collections.abc import Mapping

import pytest
from prometheus_client.parser import text_string_to_metric_families

from ops.servers.ports import free_ports
from tests.harness.system import System, until


@pytest.fixture
def port(system: System) -> int:
    """A recorder's port for Prometheus."""
    (port,) = free_ports(1)
    system.recorder(METRICS_PORT=str(port))
    return port


def exposition(port: int) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        return str(answer.read().decode())


def value(port: int, name: str, labels: Mapping[str, str] | None = None) -> float:
    """Of one sample; 0 where there is none yet."""
    families = text_string_to_metric_families(exposition(port))
    samples = [sample for family in families for sample in family.samples if sample.name == name]
    return sum(sample.value for sample in samples if sample.labels == (labels or {}))


def test_what_was_recorded_is_counted_by_its_reason(system: System, port: int) -> None:
    api = system.api()
    system.define(message_ttl_s=1)
    for _ in range(2):
        api.ended(api.accepted("sleep"))
    until(lambda: value(port, "sluice_dead_letters_total", {"reason": "MessageExpired"}) == 2)
    assert value(port, "sluice_parked_total") == 2
    until(lambda: system.depth_messages("dead.parked") == 2)
    failed = [value(port, "sluice_recorder_failures_total", {"cause": cause}) for cause in ("redis", "message")]
    assert failed == [0, 0]


def test_dead_letter_that_is_not_confirmed_in_time_is_a_failure_of_the_broker(system: System) -> None:
    (port,) = free_ports(1)
    system.recorder("tests.harness.slow_recorder", METRICS_PORT=str(port))
    system.define(message_ttl_s=1)
    system.api().accepted("sleep")
    until(lambda: value(port, "sluice_recorder_failures_total", {"cause": "broker"}) > 0)
    assert value(port, "sluice_recorder_failures_total", {"cause": "message"}) == 0


def test_servers_that_are_away_are_seen_and_their_failures_counted(system: System, port: int) -> None:
    api = system.api()
    until(lambda: (value(port, "sluice_broker_up"), value(port, "sluice_redis_up")) == (1, 1))
    system.servers.redis.kill()
    until(lambda: value(port, "sluice_redis_up") == 0)
    system.define(message_ttl_s=1)
    assert api.post("sleep").status_code == 202
    until(lambda: value(port, "sluice_recorder_failures_total", {"cause": "redis"}) > 0)
    system.servers.rabbitmq.kill()
    until(lambda: value(port, "sluice_broker_up") == 0)
    until(lambda: value(port, "sluice_recorder_failures_total", {"cause": "broker"}) > 0)
    system.servers.restore()
    until(lambda: (value(port, "sluice_broker_up"), value(port, "sluice_redis_up")) == (1, 1))
    until(lambda: value(port, "sluice_parked_total") == 1)
