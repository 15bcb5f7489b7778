"""RabbitMQ's definitions, rendered from apps/contract: applied to a broker on this machine, and a file for the chart.

`python -m ops.definitions` writes helm-releases/definitions.json, and the sums that restart the pods.

The file in git has no password hashes: `make secrets` adds them, and puts the document into a Secret. The chart
restarts no pod when the Secret or the configuration changes, so the pods have annotations with the sums of both.
"""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from apps.contract import topology
from ops.command import ROOT, command_line
from ops.credentials import Credentials
from ops.management import Management

VHOST = "/"
# the chart's RabbitMQ is 4.3.5; an older one would refuse some of the policies
VERSION = (4, 3)
ADMIN = "admin"
"""Makes the definitions and looks into every queue; no part of ours connects as this user."""
FILE = "helm-releases/definitions.json"
RELEASE = "helm-releases/rabbitmq.yaml"
DEFINITIONS_SUM = re.compile(r"(sluice/definitions-sha256: )\S+")
# what the chart writes into its ConfigMap, from templates/configmap.yaml of the version in ops/pins.py
CONFIGURATION = (
    "additionalPlugins",
    "config",
    "definitions",
    "managementPlugin",
    "metrics",
    "peerDiscoveryK8sPlugin",
    "queueBalancing",
    "service",
)
# Each file with a part of the configuration has an annotation of its own name: Kustomize adds a patch's to the
# release's.
CONFIG_SUM = re.compile(r"(sluice/(?:[a-z-]+-)?config-sha256: )\S+")


def document(
    passwords: Mapping[str, str], version: tuple[int, int] = VERSION, vhost: str = VHOST, **limits: float
) -> dict[str, Any]:
    """What the contract says, and every permission for the administrator; `limits` as in `topology.policies`.

    The administrator is one of the users if `passwords` has it: a broker that loads definitions at its start makes no
    user of its own.
    """
    definitions = topology.definitions(vhost=vhost, passwords=passwords, version=version, **limits)
    if ADMIN in passwords:
        definitions["users"].append(topology.user(ADMIN, ["administrator"], passwords[ADMIN]))
    definitions["permissions"].append({"user": ADMIN, "vhost": vhost, "configure": ".*", "write": ".*", "read": ".*"})
    return definitions


def of_cluster(credentials: Credentials, version: tuple[int, int] = VERSION) -> dict[str, Any]:
    """The document that the chart's broker loads at its start."""
    return document({**credentials.broker_passwords, ADMIN: credentials.broker_password_admin}, version)


def apply(management: Management, passwords: Mapping[str, str], vhost: str = VHOST, **limits: float) -> None:
    """Make it so in a running broker, as its administrator. OSError if the broker refuses.

    Applying twice changes nothing.
    """
    version = management.version[0], management.version[1]
    management("/api/definitions", "POST", document(passwords, version, vhost, **limits))


def without_hashes() -> str:
    """The text of the file in git: everything but the hashes."""
    definitions = of_cluster(Credentials())
    for user in definitions["users"]:
        del user["password_hash"]
    return json.dumps(definitions, indent=2) + "\n"


def differences(root: Path) -> list[tuple[str, str]]:
    """(file, its right text) of each file that differs from the contract, or whose sums differ from what it says."""
    text = without_hashes()
    there = (root / FILE).read_text() if (root / FILE).exists() else ""
    texts = [(FILE, there, text)]
    for name, config in configurations(root).items():
        old = (root / name).read_text()
        new = DEFINITIONS_SUM.sub(rf"\g<1>{_sum(text)}", old)
        texts.append((name, old, CONFIG_SUM.sub(rf"\g<1>{_sum(json.dumps(config, sort_keys=True))}", new)))
    return [(name, new) for name, old, new in texts if old != new]


def configurations(root: Path) -> dict[str, dict[str, Any]]:
    """File -> its part of the broker's configuration: the release, and the patches of clusters."""
    found = {}
    for path in sorted([root / RELEASE, *(root / "clusters").rglob("*.yaml")]):
        # not the planner's documents(): the load test imports this module, and its environment has no planner
        for each in yaml.load_all(path.read_text(), yaml.CSafeLoader):
            if each and each.get("kind") == "HelmRelease" and each["metadata"]["name"] == "rabbitmq":
                values = each["spec"].get("values", {})
                found[str(path.relative_to(root))] = {key: values[key] for key in CONFIGURATION if key in values}
    return {name: values for name, values in found.items() if values}


def without_sums(root: Path) -> Iterator[str]:
    """The files with a part of the configuration that have no annotation of their own with its sum."""
    taken: set[str] = set()
    for name in sorted(configurations(root), key=lambda name: name != RELEASE):
        names = set(CONFIG_SUM.findall((root / name).read_text()))
        if not names - taken:
            yield name
        taken |= names


def _sum(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def main() -> None:
    """Write the files that differ; `make validate` names them."""
    for name, text in differences(ROOT):
        (ROOT / name).write_text(text)
        print(f"wrote {name}")


if __name__ == "__main__":
    command_line(main)
