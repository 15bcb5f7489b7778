"""Monitors Redis' memory about once a second, outside of requests, so that a post only reads a number.

Above the configured share, posts are refused before they write anything. The rest of the memory is for the results of
tasks that are already accepted.
"""

import asyncio
import logging

from prometheus_client import Gauge

from apps.api.store import Store

log = logging.getLogger(__name__)

REDIS_MEMORY_SHARE = Gauge("sluice_redis_memory_share", "Share of Redis' maxmemory that is used; 0 without a limit")

POLL_S = 1.0


class RedisMemory:
    """The used share of maxmemory. A failed read keeps the previous value."""

    def __init__(self, store: Store, full_share: float) -> None:
        self._store = store
        self._full_share = full_share
        self.share: float | None = None
        """None if Redis has no maxmemory, or has not answered yet."""
        self.full = False

    async def run(self) -> None:
        """Read the share regularly until cancelled."""
        while True:
            await self.read()
            await asyncio.sleep(POLL_S)

    async def read(self) -> None:
        """Read the share once, within the deadline of a command."""
        try:
            self.share = share_of(await self._store.call("INFO", "memory"))
        except Exception as exc:  # noqa: BLE001 - this task must survive any error: only it reads the share
            log.warning("share of Redis' memory not read", extra={"fields": {"error": repr(exc)}})
            return
        self.full = self.share is not None and self.share >= self._full_share
        REDIS_MEMORY_SHARE.set(self.share or 0)


def share_of(info: str) -> float | None:
    """The used share of maxmemory, as Redis counts it before it refuses a write. None without a limit."""
    fields = dict(line.split(":", 1) for line in info.splitlines() if ":" in line)
    limit_bytes = int(fields["maxmemory"])
    if not limit_bytes:
        return None
    # buffers of the append-only file and of replicas do not count
    uncounted = int(fields.get("mem_not_counted_for_evict", 0))
    return max(0, int(fields["used_memory"]) - uncounted) / limit_bytes
