"""Builds workloads, traffic and cluster settings from the options."""

import argparse
import re
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import TypeVar

from sluice_planner import arrivals, kubernetes_objects, manifests, service_times
from sluice_planner.arrivals import Arrivals
from sluice_planner.cluster_settings import Cluster
from sluice_planner.durations import seconds
from sluice_planner.fields import Field, Wrong
from sluice_planner.kubernetes_objects import Object
from sluice_planner.manifests import REPLICAS_MAX, Reading
from sluice_planner.quantity import quantity
from sluice_planner.service_times import Service
from sluice_planner.simulation import LONGEST_S
from sluice_planner.traffic import Traffic
from sluice_planner.workload import Workload

NODES_MAX = 1000
# a simulation of this size takes some minutes
TASKS_MAX = 500_000_000
DEFAULT_DURATION_S = 3600.0

T = TypeVar("T")


def workloads(source: str, arguments: argparse.Namespace) -> list[Workload]:
    """The workloads of an overlay."""
    return workloads_of(kubernetes_objects.read(source), arguments)


def workloads_of(objects: Sequence[Object], arguments: argparse.Namespace) -> list[Workload]:
    """The workloads among an overlay's objects."""
    reading = Reading(
        concurrency=_at_least(arguments.concurrency, 1, "--concurrency"),
        prefetch=_at_least(arguments.prefetch_multiplier, 1, "--prefetch-multiplier"),
        prefetch_waits=arguments.prefetch_waits,
        protocol=arguments.protocol,
        skipped_triggers=tuple(arguments.skip_trigger),
    )
    return manifests.workloads(objects, reading)


def traffic(arguments: argparse.Namespace, found: Sequence[Workload]) -> tuple[Traffic, list[str]]:
    """The traffic to the workloads' queues, and sentences about what was assumed."""
    queues = [queue for each in found for queue in each.queues]
    assumed: list[str] = []
    come = _by_queue(arguments.arrivals, "--arrivals", queues, arrivals.read)
    if None in come:
        queue = _default_queue(found)
        if len(queues) > 1:
            others = ", ".join(other for other in queues if other != queue)
            assumed = [f"all arrivals go to {queue}, none to {others} (--arrivals QUEUE=...)"]
        come.setdefault(queue, []).extend(come.pop(None))
    take = _by_queue(arguments.service, "--service", queues, _services)
    service_of: dict[str, Service] = {}
    for queue in queues:
        own = take.get(queue) or take.get(None)
        if not own:
            raise Wrong(f"--service: is missing for the queue {queue}")
        service_of[queue] = own[-1]
    parts = [each for parts in come.values() for each in parts]
    duration_s = _duration(arguments, parts)
    expected = sum(each.expected(LONGEST_S if duration_s is None else duration_s) for each in parts)
    if expected > TASKS_MAX:
        raise Wrong(f"--arrivals: makes {expected:,.0f} tasks; at most {TASKS_MAX:,} can be simulated")
    made = Traffic(
        {queue: come.get(queue, []) for queue in queues},
        service_of,
        duration_s,
        seconds(arguments.warm_up, "--warm-up"),
        Field(arguments.seed, "--seed").integer(),
    )
    return made, assumed


def cluster(arguments: argparse.Namespace) -> Cluster:
    """The cluster settings. Raises Wrong if a time or a size is malformed."""
    tolerance = Field(arguments.tolerance, "--tolerance").number(0, 10)
    return Cluster(
        sync_s=_period(arguments.sync, "--sync"),
        tolerance=tolerance,
        downscale_stabilization_s=seconds(arguments.downscale_stabilization, "--downscale-stabilization"),
        stats_interval_s=_period(arguments.stats_interval, "--stats-interval"),
        stats_lag_s=seconds(arguments.stats_lag, "--stats-lag"),
        pod_start_s=seconds(arguments.pod_start, "--pod-start"),
        nodes=_nodes(arguments.nodes),
        metrics_down_s=_span(arguments.metrics_down, "--metrics-down"),
        initial_replicas=_at_least(arguments.initial_replicas, 0, "--initial-replicas"),
    )


def _by_queue(
    texts: Sequence[str], option: str, queues: Sequence[str], read: Callable[[str, str], list[T]]
) -> dict[str | None, list[T]]:
    """The values of an option by queue; those without a queue are under None."""
    found: dict[str | None, list[T]] = {}
    for text in texts:
        match = re.fullmatch(r"([^:=/@ ]+)=(.+)", text)
        queue, what = (match[1], match[2]) if match else (None, text)
        if queue is not None and queue not in queues:
            raise Wrong(f"{option}: no ScaledObject scales on the queue {queue}, only on {', '.join(queues)}")
        found.setdefault(queue, []).extend(read(what, option))
    return found


def _services(text: str, where: str) -> list[Service]:
    return [service_times.read(text, where)]


def _default_queue(found: Sequence[Workload]) -> str:
    if len(found) > 1:
        queues = ", ".join(queue for each in found for queue in each.queues)
        raise Wrong(f"--arrivals: must name a queue, QUEUE=...: one of {queues}")
    return found[0].queues[0]


def _duration(arguments: argparse.Namespace, come: Sequence[Arrivals]) -> float | None:
    if arguments.duration is not None:
        return _period(arguments.duration, "--duration")
    return DEFAULT_DURATION_S if any(each.end_s > LONGEST_S for each in come) else None


def _period(text: str, option: str) -> float:
    time_s = seconds(text, option)
    if not 0.1 <= time_s <= arrivals.HORIZON_S:  # noqa: PLR2004 - shorter than any loop of a cluster
        raise Wrong(f"{option}: must be between 0.1 s and a year, not {text!r}")
    return time_s


def _span(text: str | None, option: str) -> tuple[float, float] | None:
    if text is None:
        return None
    start, dash, end = text.partition("-")
    if not dash or seconds(start, option) >= seconds(end, option):
        raise Wrong(f"{option}: must be two times such as 10m-20m, not {text!r}")
    return seconds(start, option), seconds(end, option)


def _nodes(text: str | None) -> tuple[tuple[Fraction, Fraction], ...]:
    if text is None:
        return ()
    match = re.fullmatch(r"(\d+)x([^,]+),(.+)", text)
    if match is None or not 1 <= int(match[1]) <= NODES_MAX:
        raise Wrong(f"--nodes: must read COUNTxCPUS,MEMORY such as 3x4,16Gi, at most {NODES_MAX} of them, not {text!r}")
    size = (quantity(Field(match[2], "--nodes")), quantity(Field(match[3], "--nodes")))
    return (size,) * int(match[1])


def _at_least(number: int | None, least: int, option: str) -> int | None:
    return None if number is None else Field(number, option).integer(least, REPLICAS_MAX)
