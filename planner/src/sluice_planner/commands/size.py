"""`sluice size`: the cheapest numbers that meet objectives."""

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from sluice_planner import options

if TYPE_CHECKING:
    from collections.abc import Callable

    from sluice_planner.kubernetes_objects import Object
    from sluice_planner.sizing import Question, Trial

NAME = "size"
HELP = "find value, min, max and behavior with the fewest pod-hours that meet objectives"
SHOWN = 5
UNREACHABLE = 1


def add(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("overlay", help="a folder that Kustomize renders, a rendered file, or -")
    parser.add_argument(
        "--slo",
        action="append",
        required=True,
        help="'p95 wait < 60s' (or mean, max), 'drain 30000 in 10m'; repeatable",
    )
    options.add_traffic(parser)
    options.add_cluster(parser)
    options.add_reading(parser)
    group = parser.add_argument_group("search")
    group.add_argument("--scaled-object", metavar="NAME", help="the ScaledObject to size, if the overlay has several")
    group.add_argument("--most-pods", type=int, help="the largest maximum to try; default: four times the overlay's")
    group.add_argument("--replications", type=int, default=5, help="simulations of each candidate (%(default)s)")
    parser.add_argument("--patch", type=Path, metavar="FILE", help="write the JSON6902 patch, instead of printing it")
    parser.add_argument("--json", action="store_true", help="print every candidate as JSON")


def run(arguments: argparse.Namespace) -> int:
    """Print the cheapest candidates and the patch. Exit status 1 if no candidate meets the objectives."""
    from sluice_planner import kubernetes_objects, patch, sizing
    from sluice_planner.commands.output import write

    objects = kubernetes_objects.read(arguments.overlay)
    question, assumed = _question(arguments, objects)
    sizing.check(question)
    tried = list(sizing.trials(question, sizing.candidates(question)))
    good = sorted((each for each in tried if each.meets(question.objectives)), key=lambda each: each.pod_hours.value)
    if arguments.json:
        print(json.dumps([_data(question, each) for each in tried]))
    else:
        print("\n".join([*assumed, *_told(question, tried, good)]))
    if not good:
        return UNREACHABLE
    scaled = next(each for each in objects if each.kind == "ScaledObject" and each.name == question.workload.name)
    made = patch.as_yaml(patch.operations(scaled, good[0].candidate, question.queues), scaled)
    if arguments.patch:
        write(arguments.patch, made)
    elif not arguments.json:
        print(f"\n{made}", end="")
    return 0


def _question(arguments: argparse.Namespace, objects: list["Object"]) -> tuple["Question", list[str]]:
    from sluice_planner import inputs, objectives
    from sluice_planner.fields import Field, Wrong
    from sluice_planner.sizing import Question

    found = inputs.workloads_of(objects, arguments)
    if arguments.scaled_object:
        found = [each for each in found if each.name == arguments.scaled_object]
    if len(found) != 1:
        raise Wrong(f"--scaled-object: must select one of the overlay's ScaledObjects, but selects {len(found)}")
    traffic, assumed = inputs.traffic(arguments, found)
    most = 4 * found[0].scaler.maximum if arguments.most_pods is None else arguments.most_pods
    question = Question(
        found[0],
        traffic,
        inputs.cluster(arguments),
        tuple(objectives.read(text) for text in arguments.slo),
        Field(arguments.replications, "--replications").integer(2, 1000),
        Field(most, "--most-pods").integer(1, 10_000),
    )
    return question, [f"assumed: {sentence}" for sentence in (*found[0].assumed, *assumed)]


def _told(question: "Question", tried: list["Trial"], good: list["Trial"]) -> list[str]:
    from sluice_planner import sizing
    from sluice_planner.text_report import table

    lines = [f"{len(tried)} candidates, up to {question.replications} replications each; ± is the 95% interval."]
    if not good:
        reasons = sizing.unreachable(question, tried[-1])
        return [*lines, *(reasons or ["Each objective can be met alone, but no candidate meets all of them."])]
    head = ("", "value", "min", "max", "behavior", "pod-hours", *map(str, question.objectives))
    own = tried[0]
    rows = [_row("overlay", own), *(_row(str(rank), each) for rank, each in enumerate(good[:SHOWN], 1))]
    met = "meets" if own.meets(question.objectives) else "does not meet"
    return [
        *lines,
        f"The overlay itself {met} the objectives. The cheapest of {len(good)} that do:",
        "",
        *table([head, *rows]),
    ]


def _row(name: str, each: "Trial") -> tuple[str, ...]:
    from sluice_planner.durations import shown

    candidate = each.candidate
    measured = [
        "never" if mean.value == float("inf") else f"{shown(mean.value)}{_half(mean.half, shown)}"
        for mean in each.measured_s
    ]
    behavior = candidate.behavior or "as it is"
    hours = f"{each.pod_hours.value:.2f}{_half(each.pod_hours.half, '{:.2f}'.format)}"
    return (name, f"{candidate.value:g}", str(candidate.minimum), str(candidate.maximum), behavior, hours, *measured)


def _half(half: float, show: "Callable[[float], str]") -> str:
    return " (1 run)" if half == float("inf") else f" ± {show(half)}"


def _data(question: "Question", each: "Trial") -> dict[str, object]:
    measured = [
        {"objective": str(one), "bound_s": one.bound_s, "mean_s": _finite(mean.value), "half_s": _finite(mean.half)}
        for one, mean in zip(question.objectives, each.measured_s, strict=True)
    ]
    return {
        "value": each.candidate.value,
        "min": each.candidate.minimum,
        "max": each.candidate.maximum,
        "behavior": each.candidate.behavior,
        "pod_hours": each.pod_hours.value,
        "pod_hours_half": _finite(each.pod_hours.half),
        "objectives": measured,
        "meets": each.meets(question.objectives),
    }


def _finite(number: float) -> float | None:
    return None if number == float("inf") else number
