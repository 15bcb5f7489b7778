"""Writes every Secret to clusters/local, encrypted by SOPS with an age key that is not in git.

Existing Secrets are kept: a second run changes nothing.
"""

import hashlib
import os
from pathlib import Path
from textwrap import indent
from typing import Any

import yaml

from ops.command import ROOT, Unusable, command_line, output
from ops.credentials import Credentials
from ops.files import private_folder
from ops.secrets import READERS, key_of, manifests
from ops.tools import built
from sluice_planner.kubernetes_objects import document, document_of

TIMEOUT_S = 30
CLUSTER = "clusters/local"
# only these fields are secret; the others stay readable for reviews and Kustomize
ENCRYPTED = "^(data|stringData)$"
HEAD = """# Written by `make secrets FLUX=1`: the encrypted Secrets, and checksum annotations of pods that read them.
# A changed Secret changes the annotations, so that Flux replaces the pods.
apiVersion: kustomize.config.k8s.io/v1alpha1
kind: Component
"""
DEPLOYMENT: dict[str, Any] = {"apiVersion": "apps/v1", "kind": "Deployment"}
HELM_RELEASE: dict[str, Any] = {"apiVersion": "helm.toolkit.fluxcd.io/v2", "kind": "HelmRelease"}


def key_file() -> Path:
    """The path of the age key. It is outside of the clone, where neither git nor `make clean` can change it."""
    return Path(os.environ.get("SOPS_AGE_KEY_FILE") or Path.home() / ".config" / "sluice" / "age.key")


def into_git(root: Path = ROOT) -> None:
    """Write the Secrets that are missing or incomplete. Credentials in existing files are decrypted and kept.

    Raises Unusable if a file cannot be decrypted with the age key.
    """
    recipient = _recipient()
    there = {path: _decrypt(path) for path in sorted(root.glob(f"{CLUSTER}/*/secrets/*.sops.yaml"))}
    for secret in manifests(Credentials.from_secrets(there.values())):
        path = file_of(secret, root)
        if there.get(path) != secret:
            path.write_text(_encrypt(secret, recipient))
            print(f"wrote {path.relative_to(root)}")
    for path in differences(root):
        path.write_text(component(path.parent))
    print(f"Commit {CLUSTER}. The key of the Secrets is {key_file()}: keep a copy in your team's store for keys.")


def file_of(secret: dict[str, Any], root: Path) -> Path:
    """The file of a Secret, in the folder of the Flux Kustomization that creates its namespace."""
    namespace, name = key_of(secret)
    part = "infrastructure" if namespace == "data" else "apps"
    return root / CLUSTER / part / "secrets" / f"{namespace}-{name}.sops.yaml"


def _recipient() -> str:
    """The public key. Generates the age key if it does not exist."""
    path = key_file()
    if not path.exists():
        private_folder(path.parent)
        output(built("age-keygen"), "-o", path, timeout_s=TIMEOUT_S)
        print(f"made the age key {path}")
    return output(built("age-keygen"), "-y", path, timeout_s=TIMEOUT_S).strip()


def _encrypt(secret: dict[str, Any], recipient: str) -> str:
    formats = ("--input-type=yaml", "--output-type=yaml", "--filename-override=secret.yaml")
    choice = (f"--age={recipient}", f"--encrypted-regex={ENCRYPTED}")
    return output(built("sops"), "encrypt", *formats, *choice, text=yaml.safe_dump(secret), timeout_s=TIMEOUT_S)


def _decrypt(path: Path) -> dict[str, Any]:
    program = built("sops")
    try:
        text = output(program, "decrypt", path, timeout_s=TIMEOUT_S, env={"SOPS_AGE_KEY_FILE": str(key_file())})
    except Unusable:
        raise Unusable(
            f"{path.name} cannot be decrypted with the key in {key_file()}: copy your team's key to this file, or set "
            "SOPS_AGE_KEY_FILE to its path."
        ) from None
    return dict(document(text))


def differences(root: Path) -> list[Path]:
    """The kustomization.yaml files of encrypted Secrets that differ from the result of `component`."""
    lists = sorted(root.glob("clusters/*/*/secrets/kustomization.yaml"))
    return [path for path in lists if path.read_text() != component(path.parent)]


def component(folder: Path) -> str:
    """The text of a folder's Kustomize component: encrypted files, and a checksum annotation for each reader's pods.

    A pod reads a Secret at startup. The checksum changes with the file, so that Flux replaces the pods. It is computed
    from the encrypted text, so it reveals nothing about the Secret.
    """
    files = sorted(folder.glob("*.sops.yaml"))
    sums: dict[tuple[str, str], Any] = {}
    for path in files:
        namespace, name = key_of(document_of(path))
        for workload in READERS.get((namespace, name), []):
            sums.setdefault((namespace, workload), hashlib.sha256()).update(path.read_bytes())
    patches = [_restart(namespace, workload, each.hexdigest()) for (namespace, workload), each in sums.items()]
    names = "".join(f"\n  - {path.name}" for path in files) or " []"
    blocks = "".join(f"\n  - patch: |\n{indent(each, ' ' * 6).rstrip()}" for each in patches) or " []"
    return f"{HEAD}resources:{names}\npatches:{blocks}\n"


def _restart(namespace: str, workload: str, sum_: str) -> str:
    """A patch of pod annotations: in the Deployment, or for a StatefulSet in the values of its HelmRelease."""
    kind, _, name = workload.partition("/")
    annotations = {"sluice/credentials-sha256": sum_}
    head = HELM_RELEASE if kind == "statefulset" else DEPLOYMENT
    pods = {"template": {"metadata": {"annotations": annotations}}}
    spec = {"values": {"podAnnotations": annotations}} if kind == "statefulset" else pods
    return yaml.safe_dump(head | {"metadata": {"name": name, "namespace": namespace}, "spec": spec}, sort_keys=False)


def main() -> None:
    """Write the encrypted Secrets of this clone."""
    into_git()


if __name__ == "__main__":
    command_line(main)
