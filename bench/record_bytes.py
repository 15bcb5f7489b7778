"""`python -m bench.record_bytes`: memory of a million records, ended ids and Idempotency-Keys in a new Redis.

The entries are written by the product's own scripts. The memory of a Redis without other data is read before and after.
Some of the figures are constants of the contract (`RECORD_BYTES` and others), with which `make validate` compares an
overlay's rate with Redis' maxmemory. A test compares these constants with measured values.
"""

import argparse
import secrets
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import redis

from apps.api.idempotency import CLAIM, SETTLE
from apps.contract import states
from apps.contract.settings import Settings
from apps.contract.topology import MESSAGE_TTL_S
from ops.servers.programs import ensure
from ops.servers.redis import Redis

COUNT = 1_000_000
CHUNK = 1000
# While a table is resized, an idle Redis moves entries for 1 ms in every 100 ms.
SETTLED_S = 0.25
SETTLED_DEADLINE_S = 30.0
FLUSH_TIMEOUT_S = 120.0  # FLUSHDB frees a million entries before it answers
RESULT_TTL_S = int(Settings.model_fields["result_ttl_s"].default)
RECORD_TTL_S = RESULT_TTL_S + MESSAGE_TTL_S
EXAMPLE = '{"name_task":"abc","state":"done"}'
# Length in bytes -> JSON of a result: the result of an example task, and two sizes typical of a team's tasks.
RESULTS = {len(EXAMPLE): EXAMPLE, 100: '"' + "x" * 98 + '"', 1000: '"' + "x" * 998 + '"'}
# Tasks per second. The rate determines how many ended ids share a set.
RATES = (1, 3, 30)

Write = Callable[[Any, int], None]


def measure(client: redis.Redis, count: int) -> dict[str, float]:
    """Kind of entry -> bytes per entry."""
    found: dict[str, float] = {}
    for length, meta in RESULTS.items():
        found[f"record, result of {length} bytes"] = _bytes_of_each(client, count, _record(client, meta))
    for rate in RATES:
        found[f"ended id, {rate}/s"] = _bytes_of_each(client, count, _ended(rate))
    found["idempotency key"] = _bytes_of_each(client, count, _key(client))
    return found


def _bytes_of_each(client: redis.Redis, count: int, write: Write) -> float:
    _write(client, 0, CHUNK, write)  # one-time allocations of the server at the first script or command
    client.flushdb()
    before = _used_bytes(client)
    for start in range(0, count, CHUNK):
        _write(client, start, min(start + CHUNK, count), write)
    return (_used_bytes(client) - before) / count


def _write(client: redis.Redis, start: int, end: int, write: Write) -> None:
    pipeline = client.pipeline(transaction=False)
    for number in range(start, end):
        write(pipeline, number)
    pipeline.execute()


def _used_bytes(client: redis.Redis) -> int:
    """The used memory after Redis has finished resizing its tables, which it does while it is idle.

    Raises TimeoutError if the memory still shrinks after SETTLED_DEADLINE_S.
    """
    used = _used_bytes_now(client)
    end_s = time.monotonic() + SETTLED_DEADLINE_S
    while time.monotonic() < end_s:
        time.sleep(SETTLED_S)
        before, used = used, _used_bytes_now(client)
        if before - used < CHUNK:
            return used
    raise TimeoutError(f"the memory of Redis still shrinks after {SETTLED_DEADLINE_S} s")


def _used_bytes_now(client: redis.Redis) -> int:
    """The used memory without the buffers of the append-only file and of clients."""
    memory: Any = client.info("memory")
    return int(memory["used_memory"] - memory["mem_not_counted_for_evict"] - memory["mem_clients_normal"])


def _record(client: redis.Redis, meta: str) -> Write:
    """Write a record without its ended id, as for an id that the API did not create."""
    end = client.script_load(states.END)

    def write(pipeline: Any, number: int) -> None:
        record_keys = states.record_keys(_id(number))._replace(ended=states.NO_SET)
        arguments = record_keys.script_arguments(time.time(), RESULT_TTL_S, RECORD_TTL_S)
        keys = record_keys.script_keys(str(number), "bench")
        pipeline.evalsha(end, len(keys), *keys, *arguments, "0" * 32, "SUCCESS", meta)

    return write


def _ended(rate: int) -> Write:
    """Write an ended id as `finish` in apps/contract/states.py does."""
    started_ms = int(time.time() * 1000)

    def write(pipeline: Any, number: int) -> None:
        record_keys = states.record_keys(_id(number, started_ms + number * 1000 // rate))
        pipeline.sadd(record_keys.ended, record_keys.member)
        pipeline.expireat(record_keys.ended, int(record_keys.created_s) + RECORD_TTL_S)

    return write


def _key(client: redis.Redis) -> Write:
    claim, settle = client.script_load(CLAIM), client.script_load(SETTLE)

    def write(pipeline: Any, number: int) -> None:
        record, uuid = b"sl:k:" + number.to_bytes(16), secrets.token_bytes(16)
        digest = number.to_bytes(10)
        pipeline.evalsha(claim, 2, record, f"earlier-{number}", digest, uuid, 6000, 24 * 3600, "1", "")
        pipeline.evalsha(settle, 3, record, f"earlier-{number}", "channel", 1, "1", "1", 0)

    return write


def _id(number: int, ms: int = 0) -> str:
    """A unique id in the format of the API, created at `ms` (milliseconds since 1970)."""
    ms = ms or 1_760_000_000_000 + number
    digits = f"{ms:012x}"
    return f"{digits[:8]}-{digits[8:]}-7000-8000-{number:012x}-{secrets.token_hex(8)}"


def lines(found: dict[str, float]) -> Iterator[str]:
    """A table in Markdown: bytes per entry, and MiB for a million entries."""
    yield "| what | bytes | MiB for a million |"
    yield "|---|---|---|"
    for name, size in found.items():
        yield f"| {name} | {size:.0f} | {size * 1e6 / 2**20:.0f} |"


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(prog="python -m bench.record_bytes", description="Memory of records and keys.")
    parser.add_argument("--count", type=int, default=COUNT, help="entries of each kind")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="sluice-redis-") as folder:
        server = Redis(Path(folder), ensure())
        server.start()
        try:
            with redis.Redis.from_url(server.url(), socket_timeout=FLUSH_TIMEOUT_S) as client:
                print("\n".join(lines(measure(client, arguments.count))))
        finally:
            server.stop()


if __name__ == "__main__":
    main()
