"""Simulations of workloads under traffic reproduce known behaviour of the real system."""

import re
from dataclasses import replace
from typing import Any

import pytest

from sluice_planner import arrivals, service_times
from sluice_planner.cluster_settings import Cluster
from sluice_planner.fields import Field, Wrong
from sluice_planner.manifests import Reading, workloads
from sluice_planner.quantity import quantity
from sluice_planner.simulation import Outcome, simulate
from sluice_planner.summary import numbers
from sluice_planner.traffic import Traffic
from sluice_planner.workload import Workload
from tests.overlays import OVERLAY, objects, outcome, trigger, workload

# the original system: 1000 messages per pod, no behavior
ORIGINAL: dict[str, Any] = {
    "minReplicaCount": 2,
    "maxReplicaCount": 30,
    "pollingInterval": 3,
    "advanced": None,
    "fallback": None,
}


@pytest.fixture
def original() -> Workload:
    return workload(**ORIGINAL, triggers=trigger(value="1000"))


def steps(found: Outcome) -> list[tuple[float, int]]:
    return [(event.at_s, event.after) for event in found.events if event.before != event.after]


def test_original_scales_up_by_doubling_and_down_at_once(original: Workload) -> None:
    """Replicas that the real controller has set: 2, 4 at 75 s, 8 at 90 s, 16 at 105 s, 29 at 120 s."""
    found = outcome(original, "burst:29000@60", "12.5", duration_s=200)
    assert steps(found) == [(75, 4), (90, 8), (105, 16), (120, 29)]
    assert found.events[0].reason == "jobs: 29,000 / 1000 recommends 29, the legacy limit (double, or 4) allows 4"


@pytest.mark.parametrize(("waiting", "replicas"), [(2200, 2), (2210, 3), (29000, 29), (29100, 30)])
def test_original_scales_only_above_2200_messages(original: Workload, waiting: int, replicas: int) -> None:
    still = outcome(original, f"burst:{waiting}", "1h", duration_s=300)
    assert max(sample.desired for sample in still.samples) == replicas


def test_defaulted_behavior_adds_four_or_doubles(original: Workload) -> None:
    behavior: dict[str, Any] = {"horizontalPodAutoscalerConfig": {"behavior": {}}}
    defaulted = workload(**(ORIGINAL | {"advanced": behavior}), triggers=trigger(value="1000"))
    assert steps(outcome(defaulted, "burst:29000@60", "12.5", duration_s=200)) == [
        (75, 6),
        (90, 12),
        (105, 24),
        (120, 29),
    ]
    assert original.scaler.behavior is None


def test_run_without_a_duration_ends_when_idle() -> None:
    found = outcome(workload(), "burst:100@10", "10")
    assert (found.arrived, found.done) == (100, 100)
    assert found.samples[-1].desired == 1
    assert found.last_end_s < found.end_s < found.last_end_s + 600


def test_no_traffic_changes_nothing() -> None:
    found = outcome(workload(), "burst:1@50", "1", duration_s=40)
    assert (found.events, found.arrived, found.waits.percentile_s(99), found.peak_waiting) == ([], 0, 0.0, 0)
    assert found.pod_hours == pytest.approx(40 / 3600)


def test_drain_peak_and_maximum() -> None:
    found = outcome(workload(), "burst:100@10", "10", Cluster(pod_start_s=0))
    # the state that the sync at 15 s reads: one task runs
    assert (found.peak_waiting, found.peak_s) == (99, 15)
    assert steps(found)[:2] == [(15, 5), (30, 10)]
    assert found.max_reached_s == 30
    assert found.drained_s == pytest.approx(found.waits.max_s + 10)


def test_management_api_is_delayed_and_amqp_is_not() -> None:
    late = Cluster(stats_lag_s=20)
    assert steps(outcome(workload(), "burst:100@12", cluster=late))[0][0] == 45
    amqp = workload(triggers=trigger(protocol="amqp"))
    assert steps(outcome(amqp, "burst:100@12", cluster=late))[0][0] == 15


def test_prefetched_messages_are_hidden_from_amqp() -> None:
    text = OVERLAY.replace("--prefetch-multiplier=1", "--prefetch-multiplier=50")
    hidden = workload(text, triggers=trigger(protocol="amqp"))
    assert steps(outcome(hidden, "burst:40", duration_s=60)) == []
    assert steps(outcome(workload(text), "burst:40", duration_s=60)) != []


def test_polling_interval_has_no_effect_without_cached_metrics() -> None:
    """The trap of pollingInterval: without useCachedMetrics it has no effect."""
    uncached = trigger()
    del uncached[0]["useCachedMetrics"]
    slow, fast = (outcome(workload(triggers=uncached, pollingInterval=each), "burst:100@10") for each in (1000, 1))
    assert steps(slow) == steps(fast)
    cached = outcome(workload(pollingInterval=100), "burst:100@10")
    assert steps(cached)[0][0] == 105


def test_the_highest_of_several_triggers_wins() -> None:
    two = [*trigger(), *trigger(queueName="more", value="1")]
    both = workload(triggers=two)
    take = dict.fromkeys(both.queues, service_times.constant(100))
    come = {"jobs": [arrivals.burst(20, 0)], "more": [arrivals.burst(8, 0)]}
    (found,) = simulate([both], Traffic(come, take, 60.0), Cluster())
    assert max(sample.desired for sample in found.samples) == 8
    assert "more: 8 / 1 recommends 8" in found.events[0].reason


def test_killed_tasks_are_restarted() -> None:
    short = workload(OVERLAY.replace("GracePeriodSeconds: 60", "GracePeriodSeconds: 5"))
    found = outcome(short, "burst:30", "4m")
    kept = outcome(workload(OVERLAY.replace("GracePeriodSeconds: 60", "GracePeriodSeconds: 600")), "burst:30", "4m")
    assert found.begun_again > 0
    assert kept.begun_again == 0
    assert found.done == kept.done == 30
    assert found.last_end_s > kept.last_end_s


def test_pods_without_a_node_wait_for_room() -> None:
    size = (quantity(Field("2", "--nodes")), quantity(Field("4Gi", "--nodes")))
    found = outcome(workload(), "burst:100", cluster=Cluster(nodes=(size,)), duration_s=300)
    # pods of 500m: four fit on a node
    assert max(sample.ready for sample in found.samples) == 4
    assert max(sample.pods for sample in found.samples) == 10
    assert found.pending_max == 6


def test_two_workloads_share_the_nodes() -> None:
    other = OVERLAY.replace("name: worker", "name: other").replace("name: scaler", "name: second")
    both = workloads(objects(f"{OVERLAY}---{other.replace('queueName: jobs', 'queueName: more')}"), Reading())
    size = (quantity(Field("3", "--nodes")), quantity(Field("64Gi", "--nodes")))
    take = dict.fromkeys(("jobs", "more"), service_times.constant(100))
    come = {queue: [arrivals.burst(100, 0)] for queue in take}
    found = simulate(both, Traffic(come, take, 300.0), Cluster(nodes=(size,)))
    assert sum(each.samples[-1].ready for each in found) == 6
    assert all(each.samples[-1].desired == 10 for each in found)


def test_the_same_seed_is_the_same_traffic_on_any_overlay(original: Workload) -> None:
    first, again, other, more = (
        outcome(each, "5/s", "exponential:2", duration_s=600, seed=seed)
        for each, seed in ((workload(), 7), (workload(), 7), (original, 7), (workload(), 8))
    )
    assert numbers(first) == numbers(again)
    assert first.samples == again.samples
    assert first.arrived == other.arrived != more.arrived


def test_warm_up_is_not_counted() -> None:
    found = outcome(workload(), "burst:10 + burst:1@500", "10", warm_up_s=400.0)
    assert (found.waits.tasks, found.waits.max_s) == (1, 0.0)


def test_replicas_at_the_start() -> None:
    found = outcome(workload(), "burst:1", "1", Cluster(initial_replicas=20), duration_s=30)
    assert steps(found)[0] == (15, 10)
    assert found.events[0].reason == "more than the maximum"


def test_busy_time_is_the_sum_of_service_times() -> None:
    found = outcome(workload(), "burst:50", "10")
    assert found.busy * found.pod_hours * 3600 == pytest.approx(500)


def test_paused_scale_in_keeps_the_replicas() -> None:
    paused = re.sub(
        r"metadata: {name: scaler",
        "metadata: {annotations: {autoscaling.keda.sh/paused-scale-in: ''}, name: scaler",
        OVERLAY,
    )
    found = outcome(workload(paused), "burst:100", "10", duration_s=3600)
    assert found.samples[-1].desired == 10


def test_traffic_of_an_unknown_queue_is_refused() -> None:
    with pytest.raises(KeyError):
        simulate([workload()], replace(Traffic({}, {}), duration_s=10.0), Cluster())
    with pytest.raises(Wrong):
        quantity(Field("many", "--nodes"))
