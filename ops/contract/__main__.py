"""Compares the contract with its baseline, the contract of the last release: `python -m ops.contract [accept]`.

The baseline is a file in git, so that a change of it is seen in review: JSON schemas of the tasks' models, the queues,
the form of messages, and the OpenAPI document.
"""

import json
import secrets
import sys
from pathlib import Path
from typing import Any

from apps.api.app import create_app
from apps.contract import message, topology
from apps.contract.settings import ApiSettings
from apps.contract.tasks import Registry
from apps.tasks import TASKS
from ops.command import ROOT, Unusable, command_line
from ops.contract.comparison import compare

FILE = ROOT / "ops" / "contract" / "baseline.json"


def contract(tasks: Registry = TASKS) -> dict[str, Any]:
    """What API, workers and clients agree on, as data."""
    return {
        "form": message.FORM,
        "queues": list(topology.WORK_QUEUES),
        "tasks": {
            spec.name: {
                "input": spec.input.model_json_schema(),
                "output": spec.output.model_json_schema(mode="serialization"),
            }
            for spec in tasks.values()
        },
        "openapi": create_app(_settings(), tasks).openapi(),
    }


def text(document: dict[str, Any]) -> str:
    """The baseline's file: a line a value, sorted, so that a change is a few lines."""
    return json.dumps(document, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def check(file: Path, now: dict[str, Any]) -> None:
    """Say what has changed. Unusable where something has: whether it may is a person's decision."""
    old = json.loads(file.read_text())
    if text(old) == text(now):
        return
    found = compare(old, now)
    for finding in found:
        print(finding)
    if any(finding.breaking for finding in found):
        raise Unusable(
            "The contract breaks what clients, or tasks that wait, rely on (docs/deploy.md, Two versions at once)."
            " Keep the old beside the new, or, where it is meant, run `make contract-baseline` and commit the file."
        )
    raise Unusable("The contract has changed and breaks nothing: run `make contract-baseline`, and commit the file.")


def _settings() -> ApiSettings:
    """Settings of an API that is described and not started."""
    url = f"//user:{secrets.token_hex()}@localhost:1"
    values = {"celery_broker_url": f"amqp:{url}", "celery_result_backend": f"redis:{url}"}
    return ApiSettings.model_validate(values | {"task_id_key": secrets.token_hex(16), "auth_disabled": True})


def main() -> None:
    """Compare, or accept what there is."""
    now = contract()
    if sys.argv[1:] == ["accept"]:
        FILE.write_text(text(now))
        print(f"wrote {FILE.relative_to(ROOT)}")
        return
    check(FILE, now)


if __name__ == "__main__":
    command_line(main)
