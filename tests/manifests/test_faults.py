"""`make validate` finds each deliberate fault, and its message names the file, the object and the field."""

from pathlib import Path

import pytest

from ops.command import ROOT
from ops.validate.__main__ import findings
from tests.harness.manifest_faults import Fault, copied, faults
from tests.harness.thorough import thorough

FILES = sorted(Path(__file__).with_name("faults").glob("*.yaml"))
# Every eighth fault of each file runs always. The others are thorough tests, because they are similar to these.
FAULTS = [
    fault if number % 8 == 0 else thorough(fault)[0] for path in FILES for number, fault in enumerate(faults(path))
]
# faults that only the API server of a cluster finds: make e2e E2E=admission
API_SERVER_FAULTS = faults(ROOT / "tests" / "e2e" / "faults.yaml")


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_fault_is_found(fault: Fault, tmp_path: Path) -> None:
    clone = copied(tmp_path)
    fault.inject(clone)
    fault.assert_found(findings(clone, fault.targets))


@pytest.mark.parametrize("fault", API_SERVER_FAULTS, ids=lambda fault: fault.name)
def test_fault_for_the_api_server_can_be_injected(fault: Fault, tmp_path: Path) -> None:
    """The file contains the text that the fault replaces. This test needs no cluster."""
    fault.inject(copied(tmp_path))
