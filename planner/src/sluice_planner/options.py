"""The options that several commands share: what is read, what comes, and the cluster."""

import argparse


def add_reading(parser: argparse.ArgumentParser) -> None:
    """What the manifests leave open."""
    group = parser.add_argument_group("what the manifests leave open")
    group.add_argument("--concurrency", type=int, help="tasks at a time per pod")
    group.add_argument("--prefetch-multiplier", type=int, help="messages taken per task slot")
    group.add_argument(
        "--prefetch-waits", action="store_true",
        help="a pod is sent messages of each queue, which wait there for what it runs (plain Celery on quorum queues)",
    )  # fmt: skip
    group.add_argument("--protocol", choices=("http", "amqp"), help="of triggers whose host is in a Secret")
    group.add_argument(
        "--skip-trigger", action="append", default=[], metavar="TYPE", help="leave triggers of a type out"
    )


def add_traffic(parser: argparse.ArgumentParser) -> None:
    """What comes, and how long it takes."""
    group = parser.add_argument_group("traffic")
    group.add_argument(
        "--arrivals", action="append", default=[], required=True, metavar="[QUEUE=]WHAT",
        help="20/s | burst:29000@60 | steps:0=5/s,600=50/s | trace:FILE.csv | sine:mean=20/s,peak=40/s,period=24h"
        " | shape:LOCUSTFILE.py,per-user=0.05/s;"
        " joined by ' + '",
    )  # fmt: skip
    group.add_argument(
        "--service", action="append", default=[], required=True, metavar="[QUEUE=]WHAT",
        help="12.5 | exponential:12.5 | lognormal:12.5,cv=0.5 | histogram:FILE.csv | metrics:FILE or URL",
    )  # fmt: skip
    group.add_argument("--duration", metavar="TIME", help="if not said: until all is done, or 1h where tasks never end")
    group.add_argument("--warm-up", metavar="TIME", default="0", help="waits of tasks that come before do not count")
    group.add_argument("--seed", type=int, default=1, help="the same seed is the same traffic (%(default)s)")


def add_cluster(parser: argparse.ArgumentParser, sync: str | None = "15s") -> None:
    """The cluster, with Kubernetes' defaults; the period's may be another."""
    group = parser.add_argument_group("cluster")
    group.add_argument(
        "--sync", metavar="TIME", default=sync, help=f"the HPA's period ({sync or 'as recorded, or 15s'})"
    )
    group.add_argument("--tolerance", type=float, default=0.1, help="the HPA's (%(default)s)")
    group.add_argument("--downscale-stabilization", metavar="TIME", default="300s", help="the HPA's (%(default)s)")
    group.add_argument("--stats-interval", metavar="TIME", default="5s", help="of RabbitMQ's management (%(default)s)")
    group.add_argument("--stats-lag", metavar="TIME", default="3s", help="how late it shows them (%(default)s)")
    group.add_argument("--pod-start", metavar="TIME", default="10s", help="from made to consuming (%(default)s)")
    group.add_argument("--nodes", metavar="COUNTxCPUS,MEMORY", help="such as 3x4,16Gi; room without end if not said")
    group.add_argument("--metrics-down", metavar="FROM-TO", help="when the broker does not answer KEDA")
    group.add_argument("--initial-replicas", type=int, help="at the start; those of a workload at rest if not said")
