"""The definitions document in git is what the contract says."""

import json
import re
import shutil
from pathlib import Path

from apps.contract import topology
from ops import definitions
from ops.command import ROOT
from ops.credentials import Credentials


def test_git_has_what_the_contract_says() -> None:
    assert definitions.differences(ROOT) == []


def test_git_has_no_hash() -> None:
    assert '"password_hash"' not in (ROOT / definitions.FILE).read_text()


def test_a_changed_number_changes_the_file_and_the_pods(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "helm-releases", tmp_path / "helm-releases")
    path, release = tmp_path / definitions.FILE, tmp_path / definitions.RELEASE
    path.write_text(path.read_text().replace(str(topology.MAX_LENGTH_MESSAGES), "7"))
    release.write_text(re.sub(r"(definitions-sha256:) \w+", r"\1 old", release.read_text()))
    assert [name for name, _ in definitions.differences(tmp_path)] == [definitions.FILE, definitions.RELEASE]


def test_document_is_the_file_and_hashes() -> None:
    document = definitions.of_cluster(Credentials())
    for user in document["users"]:
        del user["password_hash"]
    assert document == json.loads((ROOT / definitions.FILE).read_text())


def test_same_password_same_document() -> None:
    credentials = Credentials()
    assert definitions.of_cluster(credentials) == definitions.of_cluster(credentials)
    assert definitions.of_cluster(credentials) != definitions.of_cluster(Credentials())
