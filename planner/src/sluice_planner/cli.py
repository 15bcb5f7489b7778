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
    """The parser of the command line."""
    top = argparse.ArgumentParser(prog="sluice", description=sluice_planner.__doc__)
    commands = top.add_subparsers(required=True, metavar="COMMAND")
    for command in COMMANDS:
        made = commands.add_parser(command.NAME, help=command.HELP, description=command.__doc__)
        command.add(made)
        made.set_defaults(run=command.run)
    return top


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status: 2, after one sentence, for wrong input."""
    parsed = parser().parse_args(arguments)
    try:
        status: int = parsed.run(parsed)
    except Wrong as exc:
        print(exc, file=sys.stderr)
        return WRONG_INPUT
    except BrokenPipeError:
        # `sluice ... | head`: discard what is still buffered, so that the flush at exit does not fail too
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    return status
