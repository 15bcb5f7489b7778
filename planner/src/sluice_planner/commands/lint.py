"""`sluice lint`: names the traps in overlays."""

import argparse

NAME = "lint"
HELP = "name the traps in overlays; exit status 1 if there are any"


def add(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("overlays", nargs="+", metavar="PATH", help="a folder that Kustomize renders, a file, or -")
    parser.add_argument("--format", choices=("text", "json", "sarif", "github"), default="text")
    parser.add_argument("--ignore", action="append", default=[], metavar="ID", help="skip a rule")
    parser.add_argument("--task-limit", metavar="TIME", help="the time limit of a task")
    parser.add_argument("--queue-max-length", type=int, default=100_000, help="messages a queue can hold (%(default)s)")
    parser.add_argument("--sync", metavar="TIME", default="15s", help="the HPA's sync period (%(default)s)")


def run(arguments: argparse.Namespace) -> int:
    """Print the findings. Exit status 1 if there are warnings or errors; notes do not count."""
    from sluice_planner.durations import seconds
    from sluice_planner.fields import Field
    from sluice_planner.kubernetes_objects import read
    from sluice_planner.rules.findings import check_overlay
    from sluice_planner.rules.formats import FORMATS
    from sluice_planner.rules.registry import Assumptions

    limit = arguments.task_limit
    assumed = Assumptions(
        task_limit_s=None if limit is None else seconds(limit, "--task-limit"),
        queue_max_length=Field(arguments.queue_max_length, "--queue-max-length").integer(1),
        sync_s=seconds(arguments.sync, "--sync"),
    )
    found = [each for path in arguments.overlays for each in check_overlay(read(path), assumed, arguments.ignore)]
    print(FORMATS[arguments.format](found))
    return int(any(each.rule.level != "note" for each in found))
