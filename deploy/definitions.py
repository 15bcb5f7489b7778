"""RabbitMQ's definitions for the chart: helm-releases/definitions.json, rendered from apps/contract.

    python -m deploy.definitions           writes the file, and its sum into rabbitmq.yaml
    python -m deploy.definitions --check   fails if that would change something

The file in git has no password hashes: `make secrets` adds them, and puts the whole into a Secret.
"""

import hashlib
import json
import re
import sys
from pathlib import Path
from typing import Any

from apps.contract import topology
from deploy.credentials import Credentials
from deploy.run import ROOT, Unusable, command_line

VHOST = "/"
# the chart's RabbitMQ is 4.3.5; an older one would refuse some of the policies
VERSION = (4, 3)
ADMIN = "admin"
FILE = "helm-releases/definitions.json"
RELEASE = "helm-releases/rabbitmq.yaml"
SUM = re.compile(r"(sluice/definitions-sha256: )\S+")


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
    """(file, its right text) of each file that differs from the contract."""
    text = without_hashes()
    release = (root / RELEASE).read_text()
    right = SUM.sub(rf"\g<1>{hashlib.sha256(text.encode()).hexdigest()}", release)
    there = (root / FILE).read_text() if (root / FILE).exists() else ""
    return [(name, new) for name, old, new in ((FILE, there, text), (RELEASE, release, right)) if old != new]


def main() -> None:
    """Write the files, or check them."""
    changed = differences(ROOT)
    if sys.argv[1:] == ["--check"] and changed:
        names = " and ".join(name for name, _ in changed)
        raise Unusable(f"{names} differs from apps/contract/topology.py: run `make definitions` and commit.")
    for name, text in changed:
        (ROOT / name).write_text(text)
        print(f"wrote {name}")


if __name__ == "__main__":
    command_line(main)
