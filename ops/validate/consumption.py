"""Rules for the command of the worker's image: the worker consumes every queue of the contract.

A manifest cannot replace the command: see runtime.py.
"""

import argparse
from collections.abc import Iterator

from apps.contract import topology
from ops.images import WORKER_DOCKERFILE, dockerfile_command
from ops.validate.tree import Finding, Tree


def check(tree: Tree) -> Iterator[Finding]:
    """Check Celery's options that select or exclude queues."""
    options = argparse.ArgumentParser(allow_abbrev=False, add_help=False)
    options.add_argument("-Q", "--queues", default=",".join(topology.WORK_QUEUES))
    options.add_argument("-X", "--exclude-queues", default="")
    found, _ = options.parse_known_args(dockerfile_command(tree.root, WORKER_DOCKERFILE))
    selected, excluded = found.queues.split(","), found.exclude_queues.split(",")
    for name in topology.WORK_QUEUES:
        if name not in selected or name in excluded:
            message = f"no worker consumes the queue {name}: its tasks would wait until they expire"
            yield Finding(WORKER_DOCKERFILE, "CMD", "-Q", message)
    for name in sorted({*selected, *excluded} - {*topology.WORK_QUEUES, ""}):
        yield Finding(WORKER_DOCKERFILE, "CMD", "-Q", f"{name} is not declared in apps/contract/topology.py")
