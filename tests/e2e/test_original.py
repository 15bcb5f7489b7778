"""The burst under the original's overlay: two workers finish it, because nothing scales them."""

import json
from collections.abc import Callable, Iterator

import pytest

from apps.contract.topology import WORK_QUEUES
from tests.e2e import burst
from tests.e2e.burst import Posted
from tests.e2e.system import System, broker


@pytest.fixture
def emptied() -> Iterator[None]:
    """Empty the queues after the test: if it fails, the tasks of later tests must not wait behind the burst."""
    yield
    with broker() as api:
        for queue in WORK_QUEUES:
            api(f"/api/queues/%2F/{queue}/contents", "DELETE")


def test_burst_is_accepted(original: Posted) -> None:
    assert len(set(original.ids)) == burst.TASKS


@pytest.mark.usefixtures("emptied")
def test_two_workers_finish_the_burst_without_scaling(
    system: System, original: Posted, record_property: Callable[[str, object], None]
) -> None:
    system.drained(burst.TASKS, burst.DRAIN_TIMEOUT_S)
    drain_s = round(system.last_end_s() - original.at_s, 1)
    (burst.FOLDER / "original.json").write_text(json.dumps({"tasks": burst.TASKS, "drain_s": drain_s}) + "\n")
    record_property("seconds to drain 900 tasks of 1 s under the original's numbers", drain_s)
    assert drain_s >= burst.ALONE_S
    assert system.states(original.ids, timeout_s=60) == {"SUCCESS"}
