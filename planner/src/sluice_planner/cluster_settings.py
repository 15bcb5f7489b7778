"""The cluster's settings, which manifests do not contain, with the defaults of Kubernetes and RabbitMQ."""

from dataclasses import dataclass
from fractions import Fraction


@dataclass(frozen=True)
class Cluster:
    """Times in seconds. `nodes` are (CPUs, bytes) of each node; an empty tuple means unlimited room.

    The management API takes a sample each `stats_interval_s` and publishes it `stats_lag_s` later: with the defaults a
    count is 3 to 8 s old. It does not answer during `metrics_down_s`. Without `initial_replicas` a workload starts
    with the replicas that it has when idle.
    """

    sync_s: float = 15.0
    tolerance: float = 0.1
    downscale_stabilization_s: float = 300.0
    stats_interval_s: float = 5.0
    stats_lag_s: float = 3.0
    pod_start_s: float = 10.0
    nodes: tuple[tuple[Fraction, Fraction], ...] = ()
    metrics_down_s: tuple[float, float] | None = None
    initial_replicas: int | None = None
