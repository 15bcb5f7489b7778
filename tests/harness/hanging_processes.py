"""A worker and a recorder that hang on a signal.

`celery -A tests.harness.hanging_processes worker`, `python -m tests.harness.hanging_processes`.

The process, its threads and its pool's processes stay alive. A worker tries to connect once a second.
"""

import asyncio
import signal
import threading
from typing import Any

from apps.contract.settings import WorkerSettings, load
from apps.worker import connection_attempts, recorder
from apps.worker.celery_app import create_app
from tests.harness.tasks import TEST_TASKS, TEST_WORKS

# The main thread hangs in its current position, as in a call that never returns.
HANG = signal.SIGUSR2
# The main thread ends with an error. A thread pool keeps the process alive for as long as a task runs.
FAIL = signal.SIGXCPU
# The recorder's next attempt to connect never ends; its event loop still runs.
STOP_TRYING = signal.SIGXFSZ


def _hang(*_: object) -> None:
    threading.Event().wait()


def _fail(*_: object) -> None:
    raise RuntimeError("told to fail")


class Recorder(recorder.Recorder):
    _tries = True

    async def _serve(self) -> None:
        asyncio.get_running_loop().add_signal_handler(STOP_TRYING, self._stop_trying)
        if not self._tries:
            await asyncio.Event().wait()
        await super()._serve()

    def _stop_trying(self) -> None:
        self._tries = False


def __getattr__(name: str) -> Any:
    if name not in {"app", "celery"}:
        raise AttributeError(name)
    connection_attempts.RETRY_MAX_S = 1
    signal.signal(HANG, _hang)
    signal.signal(FAIL, _fail)
    return create_app(load(WorkerSettings), TEST_TASKS, TEST_WORKS)


if __name__ == "__main__":
    signal.signal(HANG, _hang)
    recorder.Recorder = Recorder  # type: ignore[misc]
    asyncio.run(recorder.main())
