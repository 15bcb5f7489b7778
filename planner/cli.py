"""The command `sluice`."""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from planner import scenarios
from planner.fields import Wrong

WRONG_INPUT = 2


def parser() -> argparse.ArgumentParser:
    """What the command understands."""
    top = argparse.ArgumentParser(prog="sluice", description=sys.modules["planner"].__doc__)
    commands = top.add_subparsers(required=True, metavar="COMMAND")
    hpa = commands.add_parser("hpa", help="run the HPA's step alone on scenarios (JSON), print what it asks for (JSON)")
    hpa.add_argument("scenarios", type=Path, metavar="SCENARIOS.json")
    hpa.set_defaults(run=_hpa)
    return top


def _hpa(arguments: argparse.Namespace) -> int:
    desired = [{"desired": scenarios.run(each)} for each in scenarios.read(arguments.scenarios)]
    print(json.dumps(desired))
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command. Wrong input is one sentence, and exit status 2."""
    parsed = parser().parse_args(arguments)
    try:
        status: int = parsed.run(parsed)
    except Wrong as exc:
        print(exc, file=sys.stderr)
        return WRONG_INPUT
    except BrokenPipeError:  # `sluice ... | head`
        return 0
    return status
