"""The recorder's metrics: recorded dead letters by reason, failures by cause, and the state of broker and Redis."""

import urllib.request
from collections.abc import Mapping

import pytest
from prometheus_client.parser import text_string_to_metric_families

from ops.servers.ports import free_ports
from tests.harness.system import System, until


@pytest.fixture
def port(system: System) -> int:
    """The metrics port of a recorder."""
    (port,) = free_ports(1)
    system.recorder(METRICS_PORT=str(port))
    return port


def exposition(port: int) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        return str(answer.read().decode())


def value(port: int, name: str, labels: Mapping[str, str] | None = None) -> float:
    """Return the value of one sample; 0 if there is none yet."""
    families = text_string_to_metric_families(exposition(port))
    samples = [sample for family in families for sample in family.samples if sample.name == name]
    return sum(sample.value for sample in samples if sample.labels == (labels or {}))


def test_dead_letters_are_counted_by_reason(system: System, port: int) -> None:
    api = system.api()
    system.define(message_ttl_s=1)
    for _ in range(2):
        api.ended(api.accepted("sleep"))
    until(lambda: value(port, "sluice_dead_letters_total", {"reason": "MessageExpired"}) == 2)
    assert value(port, "sluice_parked_total") == 2
    until(lambda: system.depth_messages("dead.parked") == 2)
    failed = [value(port, "sluice_recorder_failures_total", {"cause": cause}) for cause in ("redis", "message")]
    assert failed == [0, 0]


def test_missing_confirm_of_a_parked_message_counts_as_a_broker_failure(system: System) -> None:
    (port,) = free_ports(1)
    system.recorder("tests.harness.slow_recorder", METRICS_PORT=str(port))
    system.define(message_ttl_s=1)
    system.api().accepted("sleep")
    until(lambda: value(port, "sluice_recorder_failures_total", {"cause": "broker"}) > 0)
    assert value(port, "sluice_recorder_failures_total", {"cause": "message"}) == 0


def test_outages_of_redis_and_broker_are_visible_and_counted(system: System, port: int) -> None:
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
