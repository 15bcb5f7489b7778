"""How many tasks a process accepts, and at what cost: ours, an empty endpoint, and other ways to do the same."""

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
# Of the runs at a fixed rate; more repetitions than that are no accident of the machine's.
REPEATED_MOST = 0.2
AGAINST_EMPTY = (16, 64, 256)
RATES = dict[str, list[list[Rate]]]
Figures = dict[str, dict[str, float]]


def measure(system: System, rounds: int) -> tuple[Figures, bool, dict[str, float]]:
    """The figures, whether they are void, and the rates themselves (accepted/s, medians)."""
    with ExitStack() as ends:
        servers = [ends.enter_context(server) for server in (ours(system), *others(system))]
        for server in servers:
            wrk(server, 16, 1)  # its connections are up, its code is warm
        everyone = in_turns(system, servers, 64, rounds)
        pair = servers[:2]
        found = {"c64": everyone} | {
            f"c{connections}": in_turns(system, pair, connections, rounds)
            for connections in AGAINST_EMPTY
            if connections != 64  # noqa: PLR2004 - measured with everyone
        }
        slower_per_s = min(statistics.median(per_s(everyone[server.name])) for server in pair)
        late, repeated = latencies(system, pair, int(slower_per_s / 2), rounds)
    result = {
        f"accept_{name}_vs_empty": figures.ratios(per_s(rates["ours"]), per_s(rates["empty"]))
        for name, rates in found.items()
    }
    result["accept_cpu_vs_empty"] = figures.ratios(cpu_us(everyone["ours"]), cpu_us(everyone["empty"]))
    for server in servers[2:]:
        result[f"accept_vs_{server.name}"] = figures.ratios(per_s(everyone["ours"]), per_s(everyone[server.name]))
    result["accept_p99_vs_empty"] = figures.ratios(late["ours"], late["empty"])
    empty_core = statistics.median(rate.core for turn in everyone["empty"] for rate in turn)
    medians = {f"{name}_per_s": statistics.median(per_s(turns)) for name, turns in everyone.items()}
    medians |= {f"{name}_cpu_us": statistics.median(cpu_us(everyone[name])) for name in ("ours", "empty")}
    medians |= {f"{name}_p99_ms": statistics.median(values) for name, values in late.items()}
    medians |= {"empty_core": empty_core, "p99_runs_repeated": float(repeated)}
    busy = empty_core < figures.LEAST_EMPTY_CORE or repeated > REPEATED_MOST * len(pair) * 2 * rounds
    return result, busy, medians


def in_turns(system: System, servers: Sequence[Server], connections: int, rounds: int) -> RATES:
    """By name, for each round its two measurements: A B ... B A, so that a drift disturbs all alike."""
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
    """The 99th percentiles in milliseconds, by name, one for each round; and how many runs had to be repeated."""
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
    """Of a run without a refusal, and how many had one before it.

    Where a neighbour stops the broker for a third of a second, more are in flight than may be, and refused: that is as
    it should be, and no latency.
    """
    for again in range(REPEATS_MAX):
        try:
            return vegeta_p99_ms(server, rate_per_s, LATENCY_SECONDS), again
        except Refused as exc:
            print(f"again: {exc}", file=sys.stderr, flush=True)
    return vegeta_p99_ms(server, rate_per_s, LATENCY_SECONDS), REPEATS_MAX


def there_and_back(each: Sequence[T]) -> Iterator[T]:
    """A B C C B A."""
    yield from each
    yield from reversed(each)


def per_s(turns: list[list[Rate]]) -> list[float]:
    """One rate for each round."""
    return [statistics.mean(rate.per_s for rate in turn) for turn in turns]


def cpu_us(turns: list[list[Rate]]) -> list[float]:
    """One cost for each round."""
    return [statistics.mean(rate.cpu_us for rate in turn) for turn in turns]
