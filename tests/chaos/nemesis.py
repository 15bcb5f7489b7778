"""Injects the faults of a schedule one step after the other, and writes each to the journal of faults.

A step ends when the system has recovered: each API has accepted a post, and each worker has finished a task. A system
that does not recover in time is a finding.
"""

import heapq
import time
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import replace
from itertools import count

from ops.command import Unusable
from tests.chaos.faults import named
from tests.chaos.journal import Crashed, Effect, Failed, Injected, Journal, Tail, Try
from tests.chaos.schedule import Planned, Step
from tests.chaos.world import EFFECTS_FILE, FAULTS_FILE, LEDGER_FILE, World

POLL_S = 0.1


class Nemesis:
    """Injects the faults of one run."""

    def __init__(self, world: World, recovery_s: float) -> None:
        self._world = world
        self._recovery_s = recovery_s
        self._journal = Journal(world.folder / FAULTS_FILE)
        self._numbers = count(1)

    def run(self, steps: Iterable[Step]) -> None:
        """Do all steps. Exceptions of faults are noted and become findings; the run continues."""
        for step in steps:
            time.sleep(step.pause_s)
            began_s = time.time()
            healed_s = self._do(step)
            recovered_s = self._recovered(healed_s)
            kinds = " + ".join(f"{each.kind} {each.duration_s:g} s" for each in step.faults)
            after = f"recovered {recovered_s:.1f} s after" if recovered_s is not None else "NOT RECOVERED"
            if recovered_s is None:
                self._journal.append(Failed(kinds, f"not recovered in {self._recovery_s:g} s", time.time()))
            print(f"{time.strftime('%H:%M:%S')}  {kinds}: healed after {healed_s - began_s:.1f} s, {after}", flush=True)

    def _do(self, step: Step) -> float:
        """Inject and heal the faults of a step at their times; returns the time when the last one was healed."""
        due: list[tuple[float, int, Planned, ExitStack | None, Injected | None]] = []
        start_s = time.time()
        order = count()
        for index, planned in enumerate(step.faults):
            heapq.heappush(due, (start_s + index * step.apart_s, next(order), planned, None, None))
        healed_s = start_s
        while due:
            at_s, _, planned, undo, noted = heapq.heappop(due)
            time.sleep(max(0.0, at_s - time.time()))
            try:
                if undo is None or noted is None:
                    undo = ExitStack()
                    injected_s = time.time()
                    did = undo.enter_context(named(planned.kind).make(self._world, planned.choice))
                    noted = Injected(next(self._numbers), planned.kind, did.target, injected_s, 0.0, did.victims)
                    heapq.heappush(due, (time.time() + planned.duration_s, next(order), planned, undo, noted))
                else:
                    try:
                        undo.close()
                    finally:
                        healed_s = time.time()
                        self._journal.append(replace(noted, healed_s=healed_s))
            except Exception as exc:  # noqa: BLE001 - one failed fault must not void a run of half an hour
                print(f"{planned.kind} failed: {exc!r}", flush=True)
                self._journal.append(Failed(planned.kind, repr(exc), time.time()))
        return healed_s

    def _recovered(self, healed_s: float) -> float | None:
        """Wait until the system has recovered; returns the seconds since `healed_s`, or None."""
        ledger = Tail(self._world.folder / LEDGER_FILE, from_end=True)
        effects = Tail(self._world.folder / EFFECTS_FILE, from_end=True)
        apis = {int(api.url.rpartition(":")[2]) for api in self._world.apis}
        workers = {self._world.name(worker) for worker in self._world.workers}
        while time.time() < healed_s + self._recovery_s:
            apis -= {each.api for each in ledger.new() if isinstance(each, Try) and _accepted(each, healed_s)}
            workers -= {each.worker for each in effects.new() if isinstance(each, Effect) and each.step == "done"}
            if not apis and not workers:
                return time.time() - healed_s
            if not self._world.clients.alive:
                raise Unusable(f"The clients ended: {self._world.clients.last_lines()}")
            self.look_after()
            time.sleep(POLL_S)
        return None

    def look_after(self) -> None:
        """Note and restart processes that ended by themselves, as a cluster does. Call it while no fault is on."""
        world = self._world
        for child in world.ours:
            if not child.alive:
                self._journal.append(Crashed(world.name(child), child.last_lines(3), time.time()))
                world.restart(child)
        for node in world.cluster.nodes:
            if not node.node.alive:
                self._journal.append(Crashed(node.name, node.node.last_lines(3), time.time()))
                node.launch()

    def note_clients(self) -> None:
        """Note a wrong exit status of the clients, which have ended: they may not have written all outcomes."""
        clients = self._world.clients
        if status := clients.wait():
            self._journal.append(Crashed("clients", f"exit status {status}: {clients.last_lines(3)}", time.time()))


def _accepted(each: Try, since_s: float) -> bool:
    return each.status == 202 and each.sent_s >= since_s
