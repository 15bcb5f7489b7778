"""`sluice simulate`: simulates an overlay under traffic."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from sluice_planner import options

if TYPE_CHECKING:
    from sluice_planner.text_report import Simulated

NAME = "simulate"
HELP = "simulate an overlay under traffic"


def add(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("overlay", help="a folder that Kustomize renders, a rendered file, or -")
    options.add_traffic(parser)
    options.add_cluster(parser)
    options.add_reading(parser)
    parser.add_argument("--json", action="store_true", help="print all numbers, samples and decisions as JSON")
    parser.add_argument("--html", type=Path, metavar="FILE", help="write one self-contained page")
    parser.add_argument("--png", type=Path, metavar="FILE", help="write the picture, as .png, .svg or .pdf")


def run(arguments: argparse.Namespace) -> int:
    """Simulate the overlay, write the requested files, print the result."""
    from sluice_planner import text_report

    simulated = simulate(arguments.overlay, arguments)
    if arguments.html or arguments.png:
        _draw(arguments, simulated)
    print(
        text_report.as_json(simulated) if arguments.json else "\n\n".join(text_report.text(each) for each in simulated)
    )
    return 0


def simulate(overlay: str, arguments: argparse.Namespace) -> list["Simulated"]:
    """Simulate each workload of the overlay."""
    from sluice_planner import inputs, simulation, text_report

    found = inputs.workloads(overlay, arguments)
    traffic, assumed = inputs.traffic(arguments, found)
    outcomes = simulation.simulate(found, traffic, inputs.cluster(arguments))
    return [
        text_report.Simulated(workload, outcome, (*workload.assumed, *assumed))
        for workload, outcome in zip(found, outcomes, strict=True)
    ]


def _draw(arguments: argparse.Namespace, simulated: list["Simulated"]) -> None:
    from sluice_planner import figure
    from sluice_planner.commands.output import write

    if arguments.png:
        outcomes = [each.outcome for each in simulated]
        figure.write(arguments.png, figure.figure(outcomes, [outcome.name for outcome in outcomes]))
    if arguments.html:
        write(arguments.html, figure.page(simulated))
