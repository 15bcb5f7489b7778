"""Deliberate faults: each is found, with a message that names the file, the object and the field."""

from pathlib import Path

import pytest

from deploy.validate.__main__ import findings
from tests.harness.faults import Fault, copied, faults

FILES = sorted(Path(__file__).with_name("faults").glob("*.yaml"))
FAULTS = [fault for path in FILES for fault in faults(path)]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_fault_is_found(fault: Fault, tmp_path: Path) -> None:
    clone = copied(tmp_path)
    fault.inject(clone)
    fault.assert_found(findings(clone, fault.targets))
