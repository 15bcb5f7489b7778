"""RabbitMQ's definitions for the chart: helm-releases/definitions.json, rendered from apps/contract.

    python -m deploy.definitions           writes the file, and the sums that restart the broker's pods
    python -m deploy.definitions --check   fails if that would change something

The file in git has no password hashes: `make secrets` adds them, and puts the whole into a Secret. The chart
restarts its pods for no changed Secret and for no changed configuration: so the pods have annotations with their sums.
"""

import hashlib
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from apps.contract import topology
from deploy.credentials import Credentials
from deploy.run import ROOT, Unusable, command_line
from sluice_planner.kubernetes_objects import documents

VHOST = "/"
# the chart's RabbitMQ is 4.3.5; an older one would refuse some of the policies
VERSION = (4, 3)
ADMIN = "admin"
FILE = "helm-releases/definitions.json"
RELEASE = "helm-releases/rabbitmq.yaml"
DEFINITIONS_SUM = re.compile(r"(sluice/definitions-sha256: )\S+")
# what the chart writes into its ConfigMap, from templates/configmap.yaml of the version in deploy/pins.py
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
# each file that says something of the configuration has a sum of its own, under a name of its own: a patch adds its sum
# to the one of what it patches
CONFIG_SUM = re.compile(r"(sluice/(?:[a-z-]+-)?config-sha256: )\S+")


def document(credentials: Credentials, version: tuple[int, int] = VERSION) -> dict[str, Any]:
    """The whole document: what the contract says, and the administrator, as the server makes no user of its own."""
    passwords = {name: getattr(credentials, f"broker_password_{name}") for name in topology.USERS}
    definitions = topology.definitions(vhost=VHOST, passwords=passwords, version=version)
    definitions["users"].append(topology.user(ADMIN, ["administrator"], credentials.broker_password_admin))
    definitions["permissions"].append(
        {"user": ADMIN, "vhost": VHOST, "configure": ".*", "write": ".*", "read": ".*"},
    )
    return definitions


def without_hashes() -> str:
    """The text of the file in git: everything but the hashes."""
    definitions = document(Credentials())
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
    """What each file says of the broker's configuration: the release, and the patches of clusters."""
    found = {}
    for path in sorted([root / RELEASE, *(root / "clusters").rglob("*.yaml")]):
        for each in documents(path.read_text()):
            if each.get("kind") == "HelmRelease" and each["metadata"]["name"] == "rabbitmq":
                values = each["spec"].get("values", {})
                found[str(path.relative_to(root))] = {key: values[key] for key in CONFIGURATION if key in values}
    return {name: values for name, values in found.items() if values}


def without_sums(root: Path) -> Iterator[str]:
    """The files that say something of the configuration, and have no sum of their own for it."""
    taken: set[str] = set()
    for name in sorted(configurations(root), key=lambda name: name != RELEASE):
        names = set(CONFIG_SUM.findall((root / name).read_text()))
        if not names - taken:
            yield name
        taken |= names


def _sum(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def main() -> None:
    """Write the files, or check them."""
    changed = differences(ROOT)
    if sys.argv[1:] == ["--check"] and changed:
        names = " and ".join(name for name, _ in changed)
        raise Unusable(
            f"{names} differs from apps/contract/topology.py or its sums: run `make definitions` and commit."
        )
    for name, text in changed:
        (ROOT / name).write_text(text)
        print(f"wrote {name}")


if __name__ == "__main__":
    command_line(main)
