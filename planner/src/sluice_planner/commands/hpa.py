"""`sluice hpa`: runs the HPA alone, without KEDA, queues and pods."""

import argparse
import json
from pathlib import Path

NAME = "hpa"
HELP = "run the HPA alone on scenarios; print the replicas that it sets at each sync, as JSON"


def add(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("scenarios", type=Path, metavar="SCENARIOS.json", help="one scenario, or a list of them")


def run(arguments: argparse.Namespace) -> int:
    """Print a list for a list of scenarios, one answer for one scenario."""
    from sluice_planner import scenarios

    found = scenarios.read(arguments.scenarios)
    desired = [{"desired": scenarios.run(each)} for each in (found if isinstance(found, list) else [found])]
    print(json.dumps(desired if isinstance(found, list) else desired[0]))
    return 0
