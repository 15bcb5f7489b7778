"""The command `sluice`."""

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import planner
from planner import options
from planner.fields import Field, Wrong

# Commands import what they need when they run: not each one needs numba, which takes a second to load.
# ruff: noqa: PLC0415

WRONG_INPUT = 2

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]  # noqa: SLF001 - it has no public name


def parser() -> argparse.ArgumentParser:
    """What the command understands."""
    top = argparse.ArgumentParser(prog="sluice", description=planner.__doc__)
    commands = top.add_subparsers(required=True, metavar="COMMAND")
    _add_simulate(commands)
    _add_lint(commands)
    _add_hpa(commands)
    return top


def _add_simulate(commands: "Commands") -> None:
    simulate = commands.add_parser("simulate", help="what an overlay does with traffic")
    simulate.add_argument("overlay", help="a folder that Kustomize renders, a rendered file, or -")
    for add in (options.add_traffic, options.add_cluster, options.add_reading):
        add(simulate)
    simulate.add_argument("--json", action="store_true", help="all numbers, samples and decisions, as JSON")
    simulate.add_argument("--html", type=Path, metavar="FILE", help="write one self-contained page")
    simulate.add_argument("--png", type=Path, metavar="FILE", help="write the picture, as .png, .svg or .pdf")
    simulate.set_defaults(run=_simulate)


def _add_lint(commands: "Commands") -> None:
    lint = commands.add_parser("lint", help="name the traps in overlays; exit status 1 if there are any")
    lint.add_argument("overlays", nargs="+", metavar="PATH", help="a folder that Kustomize renders, a file, or -")
    lint.add_argument("--format", choices=("text", "json", "sarif", "github"), default="text")
    lint.add_argument("--ignore", action="append", default=[], metavar="ID", help="leave a rule out")
    lint.add_argument("--task-limit", metavar="TIME", help="how long a task may run")
    lint.add_argument("--queue-max-length", type=int, default=100_000, help="what a queue holds (%(default)s)")
    lint.add_argument("--sync", metavar="TIME", default="15s", help="the HPA's period (%(default)s)")
    lint.set_defaults(run=_lint)


def _add_hpa(commands: "Commands") -> None:
    hpa = commands.add_parser("hpa", help="run the HPA's step alone on scenarios, print what it asks for (JSON)")
    hpa.add_argument("scenarios", type=Path, metavar="SCENARIOS.json")
    hpa.set_defaults(run=_hpa)


def _simulate(arguments: argparse.Namespace) -> int:
    from planner import inputs, report
    from planner.simulate import simulate

    found = inputs.workloads(arguments.overlay, arguments)
    traffic, assumed = inputs.traffic(arguments, found)
    outcomes = simulate(found, traffic, inputs.cluster(arguments))
    simulated = [
        report.Simulated(workload, outcome, (*workload.assumed, *assumed))
        for workload, outcome in zip(found, outcomes, strict=True)
    ]
    if arguments.html or arguments.png:
        from planner import figure

        if arguments.png:
            figure.write(arguments.png, figure.figure(outcomes, [outcome.name for outcome in outcomes]))
        if arguments.html:
            _write(arguments.html, figure.page(simulated))
    print(report.as_json(simulated) if arguments.json else "\n\n".join(report.text(each) for each in simulated))
    return 0


def _lint(arguments: argparse.Namespace) -> int:
    from planner import overlay
    from planner.lint import deployments, formats, replicas, triggers  # noqa: F401 - importing them makes their rules
    from planner.lint.rule import Assumptions, run
    from planner.times import seconds

    limit = arguments.task_limit
    assumed = Assumptions(
        task_limit_s=None if limit is None else seconds(limit, "--task-limit"),
        queue_max_length=Field(arguments.queue_max_length, "--queue-max-length").integer(1),
        sync_s=seconds(arguments.sync, "--sync"),
    )
    found = [each for path in arguments.overlays for each in run(overlay.read(path), assumed, arguments.ignore)]
    print(formats.FORMATS[arguments.format](found))
    return int(any(each.rule.level != "note" for each in found))


def _hpa(arguments: argparse.Namespace) -> int:
    from planner import scenarios

    found = scenarios.read(arguments.scenarios)
    desired = [{"desired": scenarios.run(each)} for each in (found if isinstance(found, list) else [found])]
    print(json.dumps(desired if isinstance(found, list) else desired[0]))
    return 0


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text)
    except OSError as exc:
        raise Wrong(f"{path}: cannot be written ({exc.strerror})") from None


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command. Wrong input is one sentence, and exit status 2."""
    parsed = parser().parse_args(arguments)
    try:
        status: int = parsed.run(parsed)
    except Wrong as exc:
        print(exc, file=sys.stderr)
        return WRONG_INPUT
    except ModuleNotFoundError as exc:
        print(f"{exc.name} is not installed: pip install 'sluice[planner]'", file=sys.stderr)
        return WRONG_INPUT
    except BrokenPipeError:
        # `sluice ... | head`: what is left in the buffer goes nowhere
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    return status
