"""The report of a run with a table per fault: report.md for people, report.json for sums over runs.

Times count from the end of the last fault of a step, when the port answers, to the first accepted post of each API and
the first finished task of each worker; the slowest one counts.
"""

import json
import os
import platform
import statistics
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tests.chaos.checker import Checker, Finding
from tests.chaos.history import History
from tests.chaos.journal import Injected

SHOWN = 20
COLUMNS = ("faults", "sent", "accepted", "refused", "unknown", "lost", "duplicated")
TIMES = ("accepted_after_s", "finished_after_s")
Events = list[tuple[float, float, Any]]
FOUND = ("lost", "stuck", "condemned", "retries_refused", "duplicates_explained", "duplicates_unexplained")
NO_FAULT = "(none)"
# Posts between the begin of a fault and this time after its end are attributed to the fault.
AFTER_S = 5.0


def result(history: History, findings: list[Finding], **about: Any) -> dict[str, Any]:
    """Return the result of a run."""
    checker = Checker(history)
    outcomes = Counter(post.outcome for post in history.posts)
    found = Counter(finding.kind for finding in findings)
    return {
        **about,
        "machine": machine(),
        "sent": len(history.posts),
        **{outcome: outcomes[outcome] for outcome in ("accepted", "refused", "unknown")},
        "requests": len(history.tries),
        "faults": len(history.faults),
        "kinds": len({fault.kind for fault in history.faults}),
        "lost": found["lost"],
        "stuck": found["stuck"],
        "condemned": found["condemned"],
        "retries_refused": checker.retries_refused(),
        "duplicates_explained": len(list(checker.duplicates(explained=True))),
        "duplicates_unexplained": found["duplicate"],
        "findings": dict(found),
        "by_fault": _by_fault(history, findings),
        "examples": [asdict(finding) for finding in findings[:200]],
    }


def machine() -> str:
    """Return cores, memory and versions of the machine."""
    gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{os.cpu_count()} cores, {gib:.0f} GiB, Linux {platform.release()}, Python {platform.python_version()}"


def _by_fault(history: History, findings: list[Finding]) -> dict[str, dict[str, Any]]:
    rows: dict[str, Counter[str]] = defaultdict(Counter)
    windows = [(fault.injected_s, fault.healed_s + AFTER_S, fault.kind) for fault in history.faults]
    kinds_of: dict[str, set[str]] = {}
    for post in history.posts:
        kinds = {kind for begin_s, end_s, kind in windows if begin_s <= post.known_s and post.sent_s <= end_s}
        for kind in kinds or {NO_FAULT}:
            rows[kind]["sent"] += 1
            rows[kind][post.outcome] += 1
        for about in filter(None, (post.task_id, post.name)):
            kinds_of[about] = kinds or {NO_FAULT}
    duplicated = {each.about for each in Checker(history).duplicates(explained=True)}
    for finding in findings:
        for kind in kinds_of.get(finding.about, ()):
            rows[kind][finding.kind] += 1
    for about in duplicated:
        for kind in kinds_of.get(about, ()):
            rows[kind]["duplicated"] += 1
    recoveries = _recoveries(history)
    counts = Counter(fault.kind for fault in history.faults)
    return {kind: {"faults": counts[kind], **rows[kind], **recoveries.get(kind, {})} for kind in sorted(rows)}


def _recoveries(history: History) -> dict[str, dict[str, Any]]:
    """Seconds from heal to the slower API's first accepted post and to the slowest worker's first finished task.

    None if there was none before the end.
    """
    times: dict[str, dict[str, Any]] = defaultdict(lambda: {name: [] for name in TIMES})
    accepted: Events = sorted((each.sent_s, each.answered_s, each.api) for each in history.tries if each.status == 202)
    finished: Events = sorted((each.at_s, each.at_s, each.worker) for each in history.effects if each.step == "done")
    # the faults of a step end together
    for fault in history.faults:
        since_s = max(other.healed_s for other in history.faults if _overlap(fault, other))
        for name, events in (("accepted_after_s", accepted), ("finished_after_s", finished)):
            after_s = _slowest_first(events, since_s)
            times[fault.kind][name].append(None if after_s is None else round(after_s, 2))
    return dict(times)


def _overlap(one: Injected, other: Injected) -> bool:
    return one.injected_s <= other.healed_s and other.injected_s <= one.healed_s


def _slowest_first(events: Events, since_s: float) -> float | None:
    """Return the time from `since_s` until everyone acted once; `events` are ordered (begin, end, who)."""
    everybody = {who for *_, who in events}
    first: dict[Any, float] = {}
    low, high = 0, len(events)
    while low < high:
        middle = (low + high) // 2
        low, high = (middle + 1, high) if events[middle][0] < since_s else (low, middle)
    for _, end_s, who in events[low:]:
        first.setdefault(who, end_s - since_s)
        if len(first) == len(everybody):
            return max(first.values())
    return None


def write(folder: Path, outcome: dict[str, Any], findings: list[Finding]) -> None:
    """Write report.md and report.json."""
    (folder / "report.json").write_text(json.dumps(outcome, indent=1) + "\n")
    (folder / "report.md").write_text("\n".join(lines(outcome, findings)) + "\n")


def together(outcomes: list[dict[str, Any]]) -> dict[str, Any]:
    """Merge the results of several runs: counts are summed, times are concatenated."""
    total: dict[str, Any] = {"machine": outcomes[0]["machine"]}
    for name in ("sent", "accepted", "refused", "unknown", "faults", *FOUND):
        total[name] = sum(outcome[name] for outcome in outcomes)
    rows: dict[str, dict[str, Any]] = {}
    for outcome in outcomes:
        for kind, row in outcome["by_fault"].items():
            into = rows.setdefault(kind, {})
            for name, value in row.items():
                into[name] = into[name] + value if name in into else value
    return total | {"by_fault": dict(sorted(rows.items())), "kinds": sum(bool(row["faults"]) for row in rows.values())}


def lines(outcome: dict[str, Any], findings: Sequence[Finding] = ()) -> Iterator[str]:
    """Yield the lines of a result in Markdown."""
    yield summary(outcome)
    yield ""
    yield f"| fault | {' | '.join(COLUMNS)} | accepted after (s) | finished after (s) |"
    yield "|---" * (len(COLUMNS) + 3) + "|"
    for kind, row in outcome["by_fault"].items():
        counts = " | ".join(str(row.get(column, 0)) for column in COLUMNS)
        times = " | ".join(_median_and_worst(row.get(name, [])) for name in TIMES)
        yield f"| {kind} | {counts} | {times} |"
    if findings:
        yield ""
        yield f"**{len(findings)} findings**: {outcome['findings']}"
        yield from (f"- {each.kind}: {each.about}: {each.detail}" for each in findings[:SHOWN])


def summary(outcome: dict[str, Any]) -> str:
    """Return a summary of a result in sentences."""
    accepted, finished = (
        _median_and_worst([each for row in outcome["by_fault"].values() for each in row.get(name, [])])
        for name in TIMES
    )
    return (
        f"{outcome['accepted']:,} accepted of {outcome['sent']:,} posts under {outcome['faults']} faults of "
        f"{outcome['kinds']} kinds: lost {outcome['lost']}, stuck {outcome['stuck']}, "
        f"condemned {outcome['condemned']}, unexplained duplicates {outcome['duplicates_unexplained']} "
        f"(explained: {outcome['duplicates_explained']}; retries that were refused: {outcome['retries_refused']}). "
        f"Seconds (median, worst) from heal to the first accepted post: {accepted}; to the first finished task: "
        f"{finished}. {outcome['machine']}."
    )


def _median_and_worst(times: list[float | None]) -> str:
    known = [each for each in times if each is not None]
    never = len(times) - len(known)
    shown = [f"{statistics.median(known):.1f}", f"{max(known):.1f}"] if known else []
    return ", ".join([*shown, *([f"{never} never"] if never else [])])


def main() -> None:
    """Print the sum of the named results: `python -m tests.chaos.report docs/measurements/2026-11-25-chaos/*.json`."""
    print("\n".join(lines(together([json.loads(Path(name).read_text()) for name in sys.argv[1:]]))))


if __name__ == "__main__":
    main()
