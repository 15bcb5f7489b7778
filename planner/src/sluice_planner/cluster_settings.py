"""What the manifests do not say: the cluster's settings, with Kubernetes' and RabbitMQ's defaults."""

from dataclasses import dataclass
from fractions import Fraction


@dataclass(frozen=True)
class Cluster:
    """Times in seconds. `nodes` are CPUs and bytes; none are room without end.

    The management API shows the last of the samples it takes each `stats_interval_s`, `stats_lag_s` late: at the
    defaults a count is 3 to 8 s old. `metrics_down_s` is when it does not answer. The replicas at the start
    are those of a workload at rest, if nothing else is said.
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
