"""The memory that `make validate` assumes for records and keys matches a real Redis."""

import pytest
from redis import Redis

from bench.record_bytes import RATES, RESULTS, measure
from ops.validate import result_memory
from tests.harness.servers import Servers

# With this number of entries, the hash tables of Redis have a medium load.
COUNT = 20_000


@pytest.fixture(scope="module")
def measured(servers: Servers) -> dict[str, float]:
    """Measure in a database of its own, in an otherwise empty server."""
    with Redis.from_url(servers.redis.url(database=1)) as client:
        client.flushall()  # keys of earlier tests would expire during the measurement
        found = measure(client, COUNT)
        client.flushdb()
    return found


@pytest.mark.thorough
def test_bytes_assumed_by_validate_match_a_real_redis(measured: dict[str, float]) -> None:
    factor = float(result_memory.RESULT_FACTOR)
    reckoned = {f"record, result of {length} bytes": result_memory.RECORD_BYTES + factor * length for length in RESULTS}
    reckoned |= {"idempotency key": result_memory.KEY_BYTES, "ended id, 3/s": result_memory.ENDED_BYTES}
    for name, size in reckoned.items():
        assert 0.75 * size < measured[name] <= 1.02 * size, name


@pytest.mark.thorough
def test_records_and_keys_take_half_of_the_memory_of_version_0_1(measured: dict[str, float]) -> None:
    """Version 0.1 used 408 bytes for 49 h and 328 bytes for 24 h."""
    of_a_day = measured["record, result of 34 bytes"] * 25 + measured["ended id, 3/s"] * 51
    assert of_a_day < 0.5 * 408 * 49
    assert measured["idempotency key"] <= 0.55 * 328
    assert max(measured[f"ended id, {rate}/s"] for rate in RATES) < 50
