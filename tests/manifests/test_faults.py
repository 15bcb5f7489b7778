"""Deliberate faults: each is found, with a message that names the file, the object and the field."""

from pathlib import Path

import pytest

from ops.command import ROOT
from ops.validate.__main__ import findings
from tests.harness.manifest_faults import Fault, copied, faults
from tests.harness.thorough import thorough

FILES = sorted(Path(__file__).with_name("faults").glob("*.yaml"))
# Of each file every eighth fault; the others, which differ in a detail, are left to the thorough tests.
FAULTS = [
    fault if number % 8 == 0 else thorough(fault)[0] for path in FILES for number, fault in enumerate(faults(path))
]
# Those that a cluster's API server must refuse: make e2e E2E=admission.
OF_THE_API_SERVER = faults(ROOT / "tests" / "e2e" / "faults.yaml")


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_fault_is_found(fault: Fault, tmp_path: Path) -> None:
    clone = copied(tmp_path)
    fault.inject(clone)
    fault.assert_found(findings(clone, fault.targets))


@pytest.mark.parametrize("fault", OF_THE_API_SERVER, ids=lambda fault: fault.name)
def test_fault_of_the_api_server_can_be_made(fault: Fault, tmp_path: Path) -> None:
    """The file contains the text that the fault replaces: check this before a cluster is needed."""
    fault.inject(copied(tmp_path))
