"""The command `sluice`."""

import argparse
import os
import sys
from collections.abc import Sequence

import sluice_planner
from sluice_planner.commands import compare, hpa, lint, replay, simulate, size
from sluice_planner.fields import Wrong

COMMANDS = (simulate, compare, size, lint, replay, hpa)
WRONG_INPUT = 2


def parser() -> argparse.ArgumentParser:
    """What the command understands."""
    top = argparse.ArgumentParser(prog="sluice", description=sluice_planner.__doc__)
    commands = top.add_subparsers(required=True, metavar="COMMAND")
    for command in COMMANDS:
        made = commands.add_parser(command.NAME, help=command.HELP, description=command.__doc__)
        command.add(made)
        made.set_defaults(run=command.run)
    return top


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command. Wrong input is one sentence, and exit status 2."""
    parsed = parser().parse_args(arguments)
    try:
        status: int = parsed.run(parsed)
    except Wrong as exc:
        print(exc, file=sys.stderr)
        return WRONG_INPUT
    except BrokenPipeError:
        # `sluice ... | head`: what is left in the buffer goes nowhere
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    return status
