"""Locust's warning about too little CPU reaches the ledger; the tests of the gates cover its effect."""

from collections.abc import Callable

import pytest

from loadtest.ledger import Ledger
from ops.servers.ports import free_ports


@pytest.mark.parametrize(("file", "warned"), [("tests/load/warned.py", True), ("loadtest/locustfile.py", False)])
def test_cpu_warning_of_locust_is_in_the_ledger(locust: Callable[..., Ledger], file: str, warned: bool) -> None:
    (port,) = free_ports(1)  # nothing listens: each post fails, so Locust needs little CPU
    ledger = locust("short", port, file=file)
    assert ledger.short_of_cpu is warned
    assert any("ConnectionRefusedError" in what for what in ledger.failures)
