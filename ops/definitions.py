"""Renders RabbitMQ's definitions from apps/contract: for a broker on this machine, and as a file for the chart.

`python -m ops.definitions` writes helm-releases/rabbitmq-definitions.json and the checksum annotations.

The file in git has no password hashes: `make secrets` adds them, and stores the document in a Secret. The chart does
not restart pods when the Secret or the configuration changes, so annotations of the pods contain checksums of both.
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
# The chart installs RabbitMQ 4.3.5. An older version refuses some of the policies.
VERSION = (4, 3)
ADMIN = "admin"
"""The user that applies definitions and inspects queues. Neither API, worker nor recorder connects as this user."""
FILE = "helm-releases/rabbitmq-definitions.json"
RELEASE = "helm-releases/rabbitmq.yaml"
# the folders whose patches may change the broker's configuration
PATCHES = ("clusters", "loadtest/cluster-platform")
DEFINITIONS_SUM = re.compile(r"(sluice/definitions-sha256: )\S+")
# the values that templates/configmap.yaml of the chart reads, in the version of ops/pins.py
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
# Each file with a part of the configuration has an annotation with a distinct name, because Kustomize merges the
# annotations of a patch into those of the release.
CONFIG_SUM = re.compile(r"(sluice/(?:[a-z-]+-)?config-sha256: )\S+")


def document(
    passwords: Mapping[str, str], version: tuple[int, int] = VERSION, vhost: str = VHOST, **limits: float
) -> dict[str, Any]:
    """The contract's definitions plus all permissions for the administrator. `limits` are those of `topology.policies`.

    The document defines the administrator only if `passwords` contains its password. A broker that loads definitions
    at startup needs that, because it does not create a default user.
    """
    definitions = topology.definitions(vhost=vhost, passwords=passwords, version=version, **limits)
    if ADMIN in passwords:
        definitions["users"].append(topology.user(ADMIN, ["administrator"], passwords[ADMIN]))
    definitions["permissions"].append({"user": ADMIN, "vhost": vhost, "configure": ".*", "write": ".*", "read": ".*"})
    return definitions


def of_cluster(credentials: Credentials, version: tuple[int, int] = VERSION) -> dict[str, Any]:
    """The definitions that the chart's broker loads at startup."""
    return document({**credentials.broker_passwords, ADMIN: credentials.broker_password_admin}, version)


def apply(management: Management, passwords: Mapping[str, str], vhost: str = VHOST, **limits: float) -> None:
    """Apply the definitions to a running broker as its administrator. Idempotent.

    Raises OSError if the broker does not answer or refuses the definitions.
    """
    version = management.version[0], management.version[1]
    management("/api/definitions", "POST", document(passwords, version, vhost, **limits))


def without_hashes() -> str:
    """The text of the file in git: the definitions without password hashes."""
    definitions = of_cluster(Credentials())
    for user in definitions["users"]:
        del user["password_hash"]
    return json.dumps(definitions, indent=2) + "\n"


def differences(root: Path) -> list[tuple[str, str]]:
    """(file, expected text) of each file whose definitions or checksums are out of date."""
    text = without_hashes()
    there = (root / FILE).read_text() if (root / FILE).exists() else ""
    texts = [(FILE, there, text)]
    for name, config in configurations(root).items():
        old = (root / name).read_text()
        new = DEFINITIONS_SUM.sub(rf"\g<1>{_sum(text)}", old)
        texts.append((name, old, CONFIG_SUM.sub(rf"\g<1>{_sum(json.dumps(config, sort_keys=True))}", new)))
    return [(name, new) for name, old, new in texts if old != new]


def configurations(root: Path) -> dict[str, dict[str, Any]]:
    """File -> the part of the broker's configuration in this file: the release, and the patches in clusters/."""
    found = {}
    patches = [path for folder in PATCHES for path in (root / folder).rglob("*.yaml")]
    for path in sorted([root / RELEASE, *patches]):
        # The planner's documents() is not used: the load test imports this module, and its environment has no planner.
        for each in yaml.load_all(path.read_text(), yaml.CSafeLoader):
            if each and each.get("kind") == "HelmRelease" and each["metadata"]["name"] == "rabbitmq":
                values = each["spec"].get("values", {})
                found[str(path.relative_to(root))] = {key: values[key] for key in CONFIGURATION if key in values}
    return {name: values for name, values in found.items() if values}


def without_sums(root: Path) -> Iterator[str]:
    """The files with a part of the configuration that lack their own checksum annotation."""
    taken: set[str] = set()
    for name in sorted(configurations(root), key=lambda name: name != RELEASE):
        names = set(CONFIG_SUM.findall((root / name).read_text()))
        if not names - taken:
            yield name
        taken |= names


def _sum(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def main() -> None:
    """Write the files that are out of date; `make validate` reports them."""
    for name, text in differences(ROOT):
        (ROOT / name).write_text(text)
        print(f"wrote {name}")


if __name__ == "__main__":
    command_line(main)
