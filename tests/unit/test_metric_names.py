"""The metrics of each process follow Prometheus' naming conventions and have the intended labels."""

import re
import subprocess
import sys
from functools import cache

import pytest
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families

# Required metrics per process. Only the names of labels are checked: before the first event they have no values.
WANTED = {
    "apps.api.app": {
        "sluice_broker_up",
        "sluice_redis_up",
        "sluice_accepted",
        "sluice_refused",
        "sluice_quota_refused",
    },
    "apps.worker.request": {
        "sluice_task_results",
        "sluice_task_wait_seconds",
        "sluice_task_run_seconds",
        "sluice_messages_handed_back",
    },
    "apps.worker.recorder": {
        "sluice_broker_up",
        "sluice_redis_up",
        "sluice_dead_letters",
        "sluice_parked",
        "sluice_recorder_failures",
    },
}
LABELS = {"task", "queue", "reason", "state", "outcome", "cause", "kind", "what", "client", "quota", "limit", "part"}
UP = re.compile("sluice_(broker|redis)_up")


@cache
def families(module: str) -> list[Metric]:
    """Return the metrics of a process that has imported only this module."""
    tell = f"import {module}, prometheus_client; print(prometheus_client.generate_latest().decode())"
    done = subprocess.run([sys.executable, "-c", tell], env={}, check=True, timeout=60, capture_output=True, text=True)
    found = text_string_to_metric_families(done.stdout)
    return [one for one in found if one.name.startswith("sluice_") and not one.name.endswith("_created")]


@pytest.mark.parametrize("module", WANTED)
def test_process_exports_its_own_metrics_only(module: str) -> None:
    names = {family.name for family in families(module)}
    assert names >= WANTED[module]
    # a gauge that its process does not update would be 0, which means "down"
    assert {name for name in names if UP.fullmatch(name)} == {name for name in WANTED[module] if UP.fullmatch(name)}


@pytest.mark.parametrize("module", WANTED)
def test_names_follow_the_conventions_of_prometheus(module: str) -> None:
    """A prefix, a unit or `total` at the end (the parser removes it from counters), and no ids as labels."""
    for family in families(module):
        assert re.fullmatch("sluice_[a-z_]+", family.name)
        assert family.documentation
        assert not family.name.endswith("_total")
        assert family.type != "histogram" or family.name.endswith("_seconds")
        labels = {name for sample in family.samples for name in sample.labels} - {"le"}
        assert labels <= LABELS
