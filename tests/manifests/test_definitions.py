"""The definitions document in git equals the contract's definitions."""

import json
import re
import shutil
from pathlib import Path

from apps.contract import topology
from ops import definitions
from ops.command import ROOT
from ops.credentials import Credentials


def test_document_in_git_equals_the_contract() -> None:
    assert definitions.differences(ROOT) == []


def test_document_in_git_contains_no_password_hash() -> None:
    assert '"password_hash"' not in (ROOT / definitions.FILE).read_text()


def test_changed_definitions_change_the_file_and_restart_the_pods(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "helm-releases", tmp_path / "helm-releases")
    path, release = tmp_path / definitions.FILE, tmp_path / definitions.RELEASE
    path.write_text(path.read_text().replace(str(topology.MAX_LENGTH_MESSAGES), "7"))
    release.write_text(re.sub(r"(definitions-sha256:) \w+", r"\1 old", release.read_text()))
    assert [name for name, _ in definitions.differences(tmp_path)] == [definitions.FILE, definitions.RELEASE]


def test_document_of_a_cluster_adds_only_password_hashes() -> None:
    document = definitions.of_cluster(Credentials())
    for user in document["users"]:
        del user["password_hash"]
    assert document == json.loads((ROOT / definitions.FILE).read_text())


def test_document_depends_only_on_the_credentials() -> None:
    credentials = Credentials()
    assert definitions.of_cluster(credentials) == definitions.of_cluster(credentials)
    assert definitions.of_cluster(credentials) != definitions.of_cluster(Credentials())
