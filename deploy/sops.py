"""Writes the Secrets into clusters/local, encrypted by SOPS for an age key that stays outside of git."""

import os
from pathlib import Path
from typing import Any

import yaml

from deploy.credentials import Credentials
from deploy.run import ROOT, Unusable, output
from deploy.secrets import key_of, manifests
from deploy.tools import built

TIMEOUT_S = 30
CLUSTER = "clusters/local"
# what no-one may read is in these fields; the rest stays legible, for reviews and for Kustomize
ENCRYPTED = "^(data|stringData)$"


def key_file() -> Path:
    """Where the age key is: outside the clone, so that neither git nor `make clean` can touch it."""
    return Path(os.environ.get("SOPS_AGE_KEY_FILE") or Path.home() / ".config" / "sluice" / "age.key")


def into_git(root: Path = ROOT) -> None:
    """Write the files that are missing or differ; those that are there are decrypted and kept."""
    recipient = _recipient()
    there = {path: _decrypt(path) for path in sorted(root.glob(f"{CLUSTER}/*/secrets/*.sops.yaml"))}
    for secret in manifests(Credentials.from_secrets(there.values())):
        path = file_of(secret, root)
        if there.get(path) != secret:
            path.write_text(_encrypt(secret, recipient))
            print(f"wrote {path.relative_to(root)}")
    for folder in sorted(root.glob(f"{CLUSTER}/*/secrets")):
        _list_resources(folder)
    print(f"Commit {CLUSTER}. The key to them is {key_file()}: keep a copy of it where your team keeps its keys.")


def file_of(secret: dict[str, Any], root: Path) -> Path:
    """A Secret's file: beside the Flux Kustomization that makes its namespace."""
    namespace, name = key_of(secret)
    part = "infrastructure" if namespace == "data" else "apps"
    return root / CLUSTER / part / "secrets" / f"{namespace}-{name}.sops.yaml"


def _recipient() -> str:
    """The public half of the key, which is made if there is none."""
    path = key_file()
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        output(built("age-keygen"), "-o", path, timeout_s=TIMEOUT_S)
        print(f"made the age key {path}")
    return output(built("age-keygen"), "-y", path, timeout_s=TIMEOUT_S).strip()


def _encrypt(secret: dict[str, Any], recipient: str) -> str:
    formats = ("--input-type=yaml", "--output-type=yaml", "--filename-override=secret.yaml")
    choice = (f"--age={recipient}", f"--encrypted-regex={ENCRYPTED}")
    return output(built("sops"), "encrypt", *formats, *choice, text=yaml.safe_dump(secret), timeout_s=TIMEOUT_S)


def _decrypt(path: Path) -> dict[str, Any]:
    try:
        text = output(built("sops"), "decrypt", path, timeout_s=TIMEOUT_S, SOPS_AGE_KEY_FILE=str(key_file()))
    except Unusable:
        raise Unusable(
            f"{path.name} cannot be decrypted by the key in {key_file()}: put your team's key there, or name it in "
            "SOPS_AGE_KEY_FILE."
        ) from None
    return dict(yaml.safe_load(text))


def _list_resources(folder: Path) -> None:
    path = folder / "kustomization.yaml"
    head = path.read_text().partition("resources:")[0]
    names = "".join(f"\n  - {each.name}" for each in sorted(folder.glob("*.sops.yaml")))
    path.write_text(f"{head}resources:{names or ' []'}\n")
