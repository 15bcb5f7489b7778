"""Locust's own warning, that it had too little processor, reaches the ledger; what it means is the gates' business."""

from collections.abc import Callable

import pytest

from loadtest.ledger import Ledger
from ops.servers.ports import free_ports


@pytest.mark.parametrize(("file", "warned"), [("tests/load/warned.py", True), ("loadtest/locustfile.py", False)])
def test_warning_is_in_the_ledger(locust: Callable[..., Ledger], file: str, warned: bool) -> None:
    (port,) = free_ports(1)  # nobody listens: each post fails, and Locust has little to do
    ledger = locust("short", port, file=file)
    assert ledger.short_of_cpu is warned
    assert any("ConnectionRefusedError" in what for what in ledger.failures)
