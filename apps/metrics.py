"""Gauges of the servers that a process needs: whether they answer it, and how full Redis is."""

from prometheus_client import Gauge

BROKER_UP = Gauge("sluice_broker_up", "1 if the broker answers this process, else 0")
REDIS_UP = Gauge("sluice_redis_up", "1 if Redis answers this process, else 0")
REDIS_MEMORY_SHARE = Gauge("sluice_redis_memory_share", "Share of Redis' maxmemory that is used; 0 without a limit")
