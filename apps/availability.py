"""Gauges of several kinds of processes: whether the broker and Redis answer."""

from prometheus_client import Gauge

BROKER_UP = Gauge("sluice_broker_up", "1 if the broker answers this process, else 0")
REDIS_UP = Gauge("sluice_redis_up", "1 if Redis answers this process, else 0")
