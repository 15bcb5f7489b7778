"""All tests on a cluster, in two lanes beside each other: `python -m tests.e2e`.

A lane is a pytest with a cluster of its own. What it says comes line by line, each with the lane's name.
"""

import os
import signal
import subprocess
import sys
from pathlib import Path
from threading import Thread

from ops.command import ROOT, command_line
from tests.e2e import lanes
from tests.e2e.cluster.state import STATE
from tests.e2e.told import Told

HERE = Path(__file__).parent


class Lane:
    """One of them, begun."""

    def __init__(self, name: str, state: Path) -> None:
        self.name = name
        self.last = ""
        files = [str(HERE / f"test_{part}.py") for part in lanes.LANES[name]]
        # if we are killed, it ends as by Ctrl-C, which reaches it by itself
        command = ["setpriv", "--pdeathsig=INT", sys.executable, "-m", "pytest", "--verbose", *files]
        # no cluster of somebody's, which both lanes would take
        environment = {lanes.VARIABLE: name, "E2E_STATE": str(state), "E2E_CONTEXT": "", "PYTHONUNBUFFERED": "1"}
        self._process = subprocess.Popen(
            command, cwd=ROOT, env=os.environ | environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        self._relay = Thread(target=self._say)
        self._relay.start()

    def ended(self) -> int:
        """Its exit status, waited for."""
        self._relay.join()
        return self._process.wait()

    def _say(self) -> None:
        assert self._process.stdout is not None  # it is a pipe
        with self._process.stdout as said:
            for line in said:
                print(f"{self.name:6} {line}", end="", flush=True)
                self.last = line.strip(" =\n")


def main() -> None:
    """Run both, to the end of both."""
    burst = Told("load")
    burst.forget()  # an earlier run's
    # the first lane's cluster is that of `make cluster`, where one runs
    first, second = Lane("first", STATE), Lane("second", STATE.with_name(f"{STATE.name}-second"))
    statuses = [first.ended()]
    if not burst.told:
        burst.tell(None)  # it ended before its burst, for which the other waits
    statuses.append(second.ended())
    for each in (first, second):
        print(f"{each.name:6} {each.last}")
    sys.exit(int(any(statuses)))  # one that was killed has a negative one


if __name__ == "__main__":
    # Ctrl-C reaches the lanes by itself; here their ends are waited for, and with them those of their clusters
    signal.signal(signal.SIGINT, lambda *_: None)
    command_line(main)
