"""The pool of processes, where it corrects Celery's."""
# ruff: noqa: SLF001 - Celery and billiard have no public names for these

import os
import signal
from collections.abc import Iterator
from types import SimpleNamespace

import pytest
from kombu.asynchronous import Hub

from apps.worker.limits import Limits
from apps.worker.prefork import Pool
from apps.worker.slots import Slots
from apps.worker.watchdog import Watchdog
from tests.harness.system import until

END_S = 30.0


@pytest.fixture
def pool() -> Iterator[Pool]:
    slots = Slots(1)
    pool = Pool(slots, Watchdog(slots), Limits(), processes=1, threads=False)
    yield pool
    pool.terminate()
    pool.join()


def test_event_loop_reads_no_closed_result_pipe_after_a_killed_process_and_a_new_connection(pool: Pool) -> None:
    pool.register_with_event_loop(Hub())
    (process,) = pool._pool
    numbers = {process.outqR_fd}
    os.kill(process.pid, signal.SIGKILL)
    until(lambda: not process._is_alive(), END_S, "the end of the process")
    # its job was written to the pipe, in part or whole, and its start was not reported
    pool.on_partial_read(SimpleNamespace(_accepted=True), process)
    hub = Hub()  # as after each new connection to the broker
    pool.register_with_event_loop(hub)
    assert not numbers & set(pool._fileno_to_outq)
    assert not numbers & set(hub.readers)
