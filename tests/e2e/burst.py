"""A burst of tasks under an overlay, from the post until the replicas are what they were.

`python -m tests.e2e.burst OVERLAY ENTRANCE` says as JSON how its tasks ended.
"""

import json
import signal
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass

from apps.contract.topology import WORK_QUEUES
from ops.command import ROOT
from tests.e2e import objects
from tests.e2e.curve import SERVICE_S, Recorder
from tests.e2e.system import System, broker, entered
from tests.e2e.told import FOLDER, Told

TASKS = 900
MINIMUM, MAXIMUM = 2, 30
CURVE = FOLDER / "curve.json"
# two workers alone
ALONE_S = TASKS * SERVICE_S / MINIMUM
DRAIN_TIMEOUT_S = 2 * ALONE_S
SCALE_DOWN_TIMEOUT_S = 300
# of a process that ends what it has forwarded, and a look that has begun
STOP_TIMEOUT_S = 60


@dataclass(frozen=True)
class Burst:
    """What became of the tasks that came at once."""

    recorder: Recorder
    drain_s: float
    states: set[str]
    effects: dict[str, int]


def seen_through(system: System, overlay: str) -> Burst:
    """Apply an overlay, post everything at once, and wait for the last task and for the last pod to go."""
    objects.apply(objects.OVERLAYS / overlay)
    for each in (objects.API, objects.RECORDER, objects.WORKER):
        objects.rolled_out(each)
    objects.settled(objects.WORKER, MINIMUM)
    system.forget()
    with Recorder(system) as recorder:
        began_s = recorder.now_s
        ids = system.post([f"{overlay}-{number}" for number in range(TASKS)])
        recorder.came(TASKS, began_s)
        system.drained(TASKS, DRAIN_TIMEOUT_S)
        drain_s = round(recorder.now_s - began_s, 1)
        Told(overlay).tell(drain_s)
        objects.settled(objects.WORKER, MINIMUM, SCALE_DOWN_TIMEOUT_S)
    return Burst(recorder, drain_s, system.states(ids, timeout_s=60), system.effects())


class Aside:
    """A burst under an overlay in a process of its own: other tests need not wait for it."""

    def __init__(self, overlay: str, entrance: str) -> None:
        FOLDER.mkdir(parents=True, exist_ok=True)
        Told(overlay).forget()  # an earlier run's
        self._log = FOLDER / f"{overlay}.log"
        command = [sys.executable, "-m", "tests.e2e.burst", overlay, entrance]
        with self._log.open("w") as log:
            self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True, cwd=ROOT)

    def states(self) -> list[str]:
        """How its tasks ended, waited for. If it fails, its tasks go too: later tests' would wait behind them."""
        try:
            with suppress(subprocess.TimeoutExpired):
                said, _ = self._process.communicate(timeout=DRAIN_TIMEOUT_S)
            status = self._process.returncode  # None where the time is over
            assert status == 0, f"the burst ended with {status}; {self._log} ends:\n{self._log.read_text()[-2000:]}"
        except BaseException:
            self.end()
            with broker() as api:
                for queue in WORK_QUEUES:
                    api(f"/api/queues/%2F/{queue}/contents", "DELETE")
            raise
        states: list[str] = json.loads(said)
        return states

    def end(self) -> None:
        """End it, if it has not ended."""
        self._process.terminate()
        try:
            self._process.communicate(timeout=STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.communicate(timeout=STOP_TIMEOUT_S)


def main() -> None:
    """See one through in the cluster that KUBECONFIG names."""
    overlay, entrance = sys.argv[1:]
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # what was forwarded is ended on the way out
    with entered(entrance) as system:
        seen = seen_through(system, overlay)
    json.dump(sorted(seen.states), sys.stdout)


if __name__ == "__main__":
    main()
