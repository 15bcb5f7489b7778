"""`sluice compare`: the same traffic on two overlays."""

import argparse
import json
from pathlib import Path

from sluice_planner import options
from sluice_planner.commands.simulate import simulate

NAME = "compare"
HELP = "the same traffic on two overlays, side by side"


def add(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("base", help="an overlay: a folder that Kustomize renders, a rendered file, or -")
    parser.add_argument("other", help="the overlay to compare it with")
    options.add_traffic(parser)
    options.add_cluster(parser)
    options.add_reading(parser)
    parser.add_argument("--markdown", action="store_true", help="print Markdown, for a pull request")
    parser.add_argument("--json", action="store_true", help="print both outcomes as JSON")
    parser.add_argument("--png", type=Path, metavar="FILE", help="write the picture, as .png, .svg or .pdf")


def run(arguments: argparse.Namespace) -> int:
    """Simulate both overlays and print the comparison."""
    from sluice_planner import comparison_table, figure, text_report

    sides = [simulate(overlay, arguments) for overlay in (arguments.base, arguments.other)]
    pairs = comparison_table.pairs(*sides)
    names = (arguments.base, arguments.other)
    if arguments.png:
        outcomes = [each.outcome for pair in pairs for each in pair]
        figure.write(arguments.png, figure.figure(outcomes, list(names) * len(pairs)))
    if arguments.json:
        print(
            json.dumps(
                {name: [text_report.data(each) for each in side] for name, side in zip(names, sides, strict=True)}
            )
        )
    else:
        show = comparison_table.as_markdown if arguments.markdown else comparison_table.as_text
        print("\n\n".join(show(pair, names) for pair in pairs))
    return 0
