"""The measurements that the load test reads from the loaded system."""

import pytest

from apps.contract import topology
from loadtest.sample import left, metrics
from ops.command import Unusable
from ops.servers.ports import free_ports


def test_dead_letters_before_the_run_are_subtracted() -> None:
    before = dict.fromkeys(topology.QUEUES, (5, 0))
    none = dict.fromkeys(topology.QUEUES, (0, 0))
    assert set(left(none, before).values()) == {0}
    (dead, *_) = set(topology.QUEUES) - set(topology.WORK_QUEUES)
    found = left(none | {dead: (7, 0), topology.WORK_QUEUES[0]: (1, 2)}, before)
    assert {name: count for name, count in found.items() if count} == {dead: 2, topology.WORK_QUEUES[0]: 3}


@pytest.mark.parametrize(
    "url", ["localhost:8000/metrics", "10.0.0.1:8000/metrics", "http:///metrics", "ftp://host/metrics"]
)
def test_invalid_metrics_url_is_named_in_the_error(url: str) -> None:
    with pytest.raises(Unusable, match="is not a URL of /metrics: write METRICS_URLS as http://host:port/metrics"):
        metrics(url)


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_refused_connection_of_a_metrics_url_is_named_in_the_error(scheme: str) -> None:
    (port,) = free_ports(1)
    with pytest.raises(Unusable, match=rf"^{scheme}://127\.0\.0\.1:{port}/metrics cannot be read .*refused"):
        metrics(f"{scheme}://127.0.0.1:{port}/metrics")
