"""`python -m ops.validate`: print one line per fault of the manifests; exit with an error if any."""

import sys
from collections.abc import Collection
from pathlib import Path

from apps.contract.queues import require_queues
from apps.tasks import TASKS
from ops.command import ROOT, command_line
from ops.credentials import Credentials
from ops.secrets import contents
from ops.validate import (
    agreement,
    attribution,
    budgets,
    chart_values,
    charts,
    completeness,
    consumption,
    delivery,
    ingress,
    network,
    nginx_release,
    placement,
    policy,
    references,
    result_memory,
    runtime,
    scaling,
    schemas,
    secret_names,
    tree,
)
from ops.validate.tree import Finding


def findings(root: Path, targets: Collection[str] = ()) -> list[Finding]:
    """All faults of the target folders; by default of all folders."""
    rendered = tree.render(root, targets)
    secrets = {key: set(values) for key, values in contents(Credentials()).items()}
    secrets["flux-system", "sops-age"] = {"age.agekey"}  # `make flux` creates this Secret
    # The rules below these two assume valid objects: they read fields without checking that the fields exist.
    for check in (schemas.check, charts.check):
        invalid = [*rendered.findings, *check(rendered)]
        if invalid:
            return attribution.attribute(rendered, invalid)
    found = [
        *completeness.check(rendered),
        *policy.check(rendered),
        *references.check(rendered),
        *secret_names.check(rendered, secrets),
        *chart_values.check(rendered),
        *ingress.check(rendered),
        *nginx_release.check(rendered),
        *network.check(rendered),
        *agreement.check(rendered),
        *runtime.check(rendered),
        *result_memory.check(rendered),
        *consumption.check(rendered),
        *budgets.check(rendered),
        *placement.check(rendered),
        *scaling.check(rendered),
        *delivery.check(rendered),
    ]
    return attribution.attribute(rendered, found)


def main() -> None:
    """Print the findings."""
    require_queues(TASKS)
    found = findings(ROOT)
    for finding in found:
        print(finding)
    if found:
        sys.exit(f"{len(found)} faults")
    print("The manifests are valid.")


if __name__ == "__main__":
    command_line(main)
