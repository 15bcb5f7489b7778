"""Measures rate, CPU cost and latency of accepting tasks: our API, an empty endpoint, and other implementations."""

import statistics
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from typing import TypeVar

from bench import figures
from bench.load import Rate, Refused, vegeta_p99_ms, wrk
from bench.server import Server, others, ours, purge
from tests.harness.system import System

T = TypeVar("T")

SECONDS = 3.0
LATENCY_SECONDS = 5
REPEATS_MAX = 3
# Share of the fixed-rate runs that may be repeated. More repetitions mean that the machine is too busy.
REPEATED_MOST = 0.2
AGAINST_EMPTY = (16, 64, 256)
RATES = dict[str, list[list[Rate]]]
Figures = dict[str, dict[str, float]]


def measure(system: System, rounds: int) -> tuple[Figures, bool, dict[str, float]]:
    """Returns (figures, whether the machine was too busy, medians of the raw values with units in their names)."""
    with ExitStack() as ends:
        servers = [ends.enter_context(server) for server in (ours(system), *others(system))]
        for server in servers:
            wrk(server, 16, 1)  # warm-up
        all_rates = in_turns(system, servers, 64, rounds)
        pair = servers[:2]
        found = {"c64": all_rates} | {
            f"c{connections}": in_turns(system, pair, connections, rounds)
            for connections in AGAINST_EMPTY
            if connections != 64  # noqa: PLR2004 - measured above
        }
        slower_per_s = min(statistics.median(per_s(all_rates[server.name])) for server in pair)
        late, repeated = latencies(system, pair, int(slower_per_s / 2), rounds)
    result = {
        f"accept_{name}_vs_empty": figures.ratios(per_s(rates["ours"]), per_s(rates["empty"]))
        for name, rates in found.items()
    }
    result["accept_cpu_vs_empty"] = figures.ratios(cpu_us(all_rates["ours"]), cpu_us(all_rates["empty"]))
    for server in servers[2:]:
        result[f"accept_vs_{server.name}"] = figures.ratios(per_s(all_rates["ours"]), per_s(all_rates[server.name]))
    result["accept_p99_vs_empty"] = figures.ratios(late["ours"], late["empty"])
    empty_core = statistics.median(rate.core for turn in all_rates["empty"] for rate in turn)
    medians = {f"{name}_per_s": statistics.median(per_s(turns)) for name, turns in all_rates.items()}
    medians |= {f"{name}_cpu_us": statistics.median(cpu_us(all_rates[name])) for name in ("ours", "empty")}
    medians |= {f"{name}_p99_ms": statistics.median(values) for name, values in late.items()}
    medians |= {"empty_core": empty_core, "p99_runs_repeated": float(repeated)}
    busy = empty_core < figures.LEAST_EMPTY_CORE or repeated > REPEATED_MOST * len(pair) * 2 * rounds
    return result, busy, medians


def in_turns(system: System, servers: Sequence[Server], connections: int, rounds: int) -> RATES:
    """Server name -> the two rates of each round. The order A B ... B A distributes a drift evenly over the servers."""
    found: RATES = defaultdict(list)
    for _ in range(rounds):
        turns: dict[str, list[Rate]] = defaultdict(list)
        for server in there_and_back(servers):
            turns[server.name].append(wrk(server, connections, SECONDS))
            purge(system)
        for name, both in turns.items():
            found[name].append(both)
    return found


def latencies(
    system: System, servers: Sequence[Server], rate_per_s: int, rounds: int
) -> tuple[dict[str, list[float]], int]:
    """Returns (server name -> p99 in milliseconds of each round, number of repeated runs)."""
    found: dict[str, list[float]] = defaultdict(list)
    repeated = 0
    for _ in range(rounds):
        turns: dict[str, list[float]] = defaultdict(list)
        for server in there_and_back(servers):
            p99_ms, again = _p99_ms(server, rate_per_s)
            turns[server.name].append(p99_ms)
            repeated += again
            purge(system)
        for name, both in turns.items():
            found[name].append(statistics.mean(both))
    return found, repeated


def _p99_ms(server: Server, rate_per_s: int) -> tuple[float, int]:
    """Returns (the p99 in milliseconds of a run without refusals, number of runs that were repeated).

    If another process stalls the broker for a third of a second, the API correctly refuses tasks above its limit of
    tasks in flight. Such a run does not measure latency, and is repeated. Raises Wrong if the last run is refused too.
    """
    for again in range(REPEATS_MAX):
        try:
            return vegeta_p99_ms(server, rate_per_s, LATENCY_SECONDS), again
        except Refused as exc:
            print(f"again: {exc}", file=sys.stderr, flush=True)
    return vegeta_p99_ms(server, rate_per_s, LATENCY_SECONDS), REPEATS_MAX


def there_and_back(each: Sequence[T]) -> Iterator[T]:
    """Yield A B C C B A for the items A B C."""
    yield from each
    yield from reversed(each)


def per_s(turns: list[list[Rate]]) -> list[float]:
    """Requests per second of each round."""
    return [statistics.mean(rate.per_s for rate in turn) for turn in turns]


def cpu_us(turns: list[list[Rate]]) -> list[float]:
    """Server CPU per request, in microseconds, of each round."""
    return [statistics.mean(rate.cpu_us for rate in turn) for turn in turns]
