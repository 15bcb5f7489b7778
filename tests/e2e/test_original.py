"""The burst under the original's numbers: its two workers take it alone."""

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

from apps.contract.topology import WORK_QUEUES
from tests.e2e import burst
from tests.e2e.system import System, broker


@dataclass(frozen=True)
class Posted:
    """A burst that the workers are busy with."""

    ids: list[str]
    at_s: float


@pytest.fixture(scope="session")
def posted(system: System) -> Posted:
    """Post the burst once: between the two tests others run, which leave the workers and their queues alone."""
    burst.rest(system, "original")
    at_s = time.time()
    return Posted(burst.post(system, "original"), at_s)


@pytest.fixture
def emptied() -> Iterator[None]:
    """Empty the queues after the test: if it fails, tasks of later tests must not wait behind the burst."""
    yield
    with broker() as api:
        for queue in WORK_QUEUES:
            api(f"/api/queues/%2F/{queue}/contents", "DELETE")


def test_burst_is_accepted(posted: Posted) -> None:
    assert len(set(posted.ids)) == burst.TASKS


@pytest.mark.usefixtures("emptied")
def test_two_workers_take_it_alone(
    system: System, posted: Posted, record_property: Callable[[str, object], None]
) -> None:
    system.drained(burst.TASKS, burst.DRAIN_TIMEOUT_S)
    drain_s = round(system.last_end_s() - posted.at_s, 1)
    (burst.FOLDER / "original.json").write_text(json.dumps({"tasks": burst.TASKS, "drain_s": drain_s}) + "\n")
    record_property("seconds to drain 900 tasks of 1 s under the original's numbers", drain_s)
    assert drain_s >= burst.ALONE_S
    assert system.states(posted.ids, timeout_s=60) == {"SUCCESS"}
