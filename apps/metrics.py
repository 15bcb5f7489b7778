"""Gauges that more than one kind of process exposes: whether the servers that it needs answer it."""

from prometheus_client import Gauge

BROKER_UP = Gauge("sluice_broker_up", "1 if the broker answers this process, else 0")
REDIS_UP = Gauge("sluice_redis_up", "1 if Redis answers this process, else 0")
