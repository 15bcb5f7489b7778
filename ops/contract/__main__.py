"""Compares the contract with its baseline, the contract of the last release: `python -m ops.contract [accept]`.

The baseline is a file in git, so that reviewers see each change: JSON schemas of the tasks' models, the queues, the
format version of messages, and the OpenAPI document.
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
    """The current contract between API, workers and clients, as JSON-serializable data."""
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
    """The text of the baseline file: sorted, and one line per value, so that diffs are short."""
    return json.dumps(document, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def check(file: Path, now: dict[str, Any]) -> None:
    """Print the changes since the baseline. Raises Unusable if there are any, as a person decides whether to accept."""
    old = json.loads(file.read_text())
    if text(old) == text(now):
        return
    found = compare(old, now)
    for finding in found:
        print(finding)
    if any(finding.breaking for finding in found):
        raise Unusable(
            "The contract breaks clients or queued tasks of the last version (docs/deploy.md, Two versions at once)."
            " Support the old form too, or, if the break is intended, run `make contract-baseline` and commit the file."
        )
    raise Unusable("The contract has changed and breaks nothing: run `make contract-baseline`, and commit the file.")


def _settings() -> ApiSettings:
    """Settings for an API that is only created to read its OpenAPI document. They are valid, and reach no server."""
    url = f"//user:{secrets.token_hex()}@localhost:1"
    values = {"celery_broker_url": f"amqp:{url}", "celery_result_backend": f"redis:{url}"}
    return ApiSettings.model_validate(values | {"task_id_key": secrets.token_hex(16), "auth_disabled": True})


def main() -> None:
    """Compare the contract with the baseline, or with `accept` write it as the new baseline."""
    now = contract()
    if sys.argv[1:] == ["accept"]:
        FILE.write_text(text(now))
        print(f"wrote {FILE.relative_to(ROOT)}")
        return
    check(FILE, now)


if __name__ == "__main__":
    command_line(main)
