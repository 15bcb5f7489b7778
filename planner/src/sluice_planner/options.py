"""The options that several commands share: manifests, traffic and cluster."""

import argparse


def add_reading(parser: argparse.ArgumentParser) -> None:
    """Add the options that complete the manifests."""
    group = parser.add_argument_group("manifests")
    group.add_argument("--concurrency", type=int, help="tasks that a pod runs at a time")
    group.add_argument("--prefetch-multiplier", type=int, help="messages that a pod prefetches per task slot")
    group.add_argument(
        "--prefetch-waits", action="store_true",
        help="a pod prefetches from each queue, behind its running tasks (plain Celery on quorum queues)",
    )  # fmt: skip
    group.add_argument(
        "--protocol", choices=("http", "amqp"), help="the protocol of triggers whose host is in a Secret"
    )
    group.add_argument("--skip-trigger", action="append", default=[], metavar="TYPE", help="ignore triggers of a type")


def add_traffic(parser: argparse.ArgumentParser) -> None:
    """Add the options for arrivals and service times."""
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
    group.add_argument(
        "--duration", metavar="TIME", help="default: until all tasks are done, or 1h if arrivals never end"
    )
    group.add_argument(
        "--warm-up", metavar="TIME", default="0", help="ignore the waiting times of tasks that arrive before"
    )
    group.add_argument(
        "--seed", type=int, default=1, help="random seed: the same seed generates the same traffic (%(default)s)"
    )


def add_cluster(parser: argparse.ArgumentParser, sync: str | None = "15s") -> None:
    """Add the cluster's options. `sync` is the default of the HPA's period, None if the recording has it."""
    group = parser.add_argument_group("cluster")
    group.add_argument(
        "--sync", metavar="TIME", default=sync, help=f"the HPA's sync period ({sync or 'as recorded, or 15s'})"
    )
    group.add_argument("--tolerance", type=float, default=0.1, help="the HPA's tolerance (%(default)s)")
    group.add_argument(
        "--downscale-stabilization", metavar="TIME", default="300s", help="the HPA's window (%(default)s)"
    )
    group.add_argument(
        "--stats-interval", metavar="TIME", default="5s", help="the period of RabbitMQ's statistics (%(default)s)"
    )
    group.add_argument(
        "--stats-lag", metavar="TIME", default="3s", help="the delay until statistics are visible (%(default)s)"
    )
    group.add_argument(
        "--pod-start", metavar="TIME", default="10s", help="from a pod's creation until it consumes (%(default)s)"
    )
    group.add_argument("--nodes", metavar="COUNTxCPUS,MEMORY", help="such as 3x4,16Gi; default: unlimited")
    group.add_argument("--metrics-down", metavar="FROM-TO", help="a time span in which the broker does not answer KEDA")
    group.add_argument("--initial-replicas", type=int, help="replicas at the start; default: those of an idle system")
