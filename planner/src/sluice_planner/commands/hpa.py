"""`sluice hpa`: the HPA's step alone."""

import argparse
import json
from pathlib import Path

NAME = "hpa"
HELP = "run the HPA's step alone on scenarios, print what it asks for (JSON)"


def add(parser: argparse.ArgumentParser) -> None:
    """The options."""
    parser.add_argument("scenarios", type=Path, metavar="SCENARIOS.json", help="one scenario, or a list of them")


def run(arguments: argparse.Namespace) -> int:
    """A list for a list, one answer for one."""
    from sluice_planner import scenarios

    found = scenarios.read(arguments.scenarios)
    desired = [{"desired": scenarios.run(each)} for each in (found if isinstance(found, list) else [found])]
    print(json.dumps(desired if isinstance(found, list) else desired[0]))
    return 0
