"""Workers that prefetch messages of each queue behind their running tasks, as Celery does on quorum queues.

This is `--prefetch-waits`. The broker counts prefetched messages per queue: it may send two messages to a pod with one
task slot and two queues, and the second waits there for the end of the first task, even while other pods are idle. This
simulation by single events in plain Python is some hundred times slower than kernel.py, whose slots hold one task each.
"""

import heapq
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count

import numpy as np

from sluice_planner import kernel
from sluice_planner.kernel import Floats, Integers
from sluice_planner.workers import Tally, Workers


@dataclass(eq=False)
class _Task:
    came_s: float
    service_s: float
    queue: int
    end_s: float = 0.0
    begun: bool = False


@dataclass(eq=False)
class _Pod:
    slots: int
    credit: list[int]
    """Messages of each queue that the broker may still send."""
    held: deque[_Task] = field(default_factory=deque)
    running: list[_Task] = field(default_factory=list)
    gone: bool = False


class PrefetchingWorkers(Workers):
    """Like `Workers`, but each pod prefetches so many messages of each queue per task slot."""

    def __init__(self, queues: int, warm_up_s: float = 0.0, prefetch: int = 1) -> None:
        super().__init__(queues, warm_up_s)
        self._prefetch = prefetch
        self._queues: list[deque[_Task]] = [deque() for _ in range(queues)]
        # pods with credit, in the order in which the broker sends to them
        self._consumers: list[deque[_Pod]] = [deque() for _ in range(queues)]
        self._events: list[tuple[float, int, Callable[[float], None]]] = []
        self._number = count()
        self._pods: dict[int, _Pod] = {}
        self._coming: deque[_Task] = deque()
        self._arrived = np.zeros(queues, np.int64)
        self._done = np.zeros(queues, np.int64)

    def load(self, came: Floats, service: Floats, queue: Integers) -> None:
        self._coming.extend(map(_Task, came.tolist(), service.tolist(), queue.tolist()))

    def advance(self, until_s: float) -> None:
        while True:
            event_s = self._events[0][0] if self._events else np.inf
            if self._coming and self._coming[0].came_s < min(until_s, event_s):
                task = self._coming.popleft()
                self._arrived[task.queue] += 1
                self._queues[task.queue].append(task)
                self._send(task.queue, task.came_s)
            elif event_s < until_s:
                _, _, event = heapq.heappop(self._events)
                event(event_s)
            else:
                return

    def tally(self, now_s: float) -> Tally:
        arrived, running, done = self._arrived.copy(), np.zeros_like(self._arrived), self._done.copy()
        for task in self._coming:
            if task.came_s > now_s:
                break
            arrived[task.queue] += 1
        for task in self._all_running():
            (done if task.end_s <= now_s else running)[task.queue] += 1
        return Tally(arrived, arrived - running - done, running, int(done.sum()))

    def add(self, count: int, at_s: float) -> Integers:
        pod = _Pod(count, [count * self._prefetch] * len(self._queues))
        slots = np.arange(len(self._pods), len(self._pods) + count)
        self._pods |= dict.fromkeys(slots.tolist(), pod)
        self._at(at_s, lambda now_s: self._subscribe(pod, now_s))
        return slots

    def retire(self, slots: Integers, now_s: float, grace_s: float) -> float:
        pods = {self._pods[slot] for slot in slots.tolist()}
        ends_s = [now_s]
        for pod in pods:
            pod.gone = True
            for consumers in self._consumers:
                if pod in consumers:
                    consumers.remove(pod)
            self._give_back(list(pod.held), now_s)
            pod.held.clear()
            for task in pod.running:
                if task.end_s > now_s + grace_s:
                    self._state.x[kernel.WORK_SUM] -= task.end_s - now_s - grace_s
                    task.end_s = now_s + grace_s
                    self._state.n[kernel.KILLED] += 1
                    self._at(task.end_s, lambda at_s, pod=pod, task=task: self._kill(pod, task, at_s))  # type: ignore[misc]
                ends_s.append(task.end_s)
        return max(ends_s)

    def work_s(self, now_s: float) -> float:
        ahead_s = sum(max(0.0, task.end_s - now_s) for task in self._all_running())
        return float(self._state.x[kernel.WORK_SUM]) - ahead_s

    def oldest_s(self, now_s: float) -> float:
        waiting = [task for queue in self._queues for task in queue]
        waiting += [task for pod in self._pods.values() for task in pod.held]
        return max((now_s - task.came_s for task in [*waiting, *list(self._coming)[:1]]), default=0.0)

    def _all_running(self) -> list[_Task]:
        return [task for pod in set(self._pods.values()) for task in pod.running]

    def _at(self, at_s: float, event: Callable[[float], None]) -> None:
        heapq.heappush(self._events, (at_s, next(self._number), event))

    def _subscribe(self, pod: _Pod, now_s: float) -> None:
        if not pod.gone:
            for queue, consumers in enumerate(self._consumers):
                consumers.append(pod)
                self._send(queue, now_s)

    def _send(self, queue: int, now_s: float) -> None:
        """Send the messages of a queue to the pods with credit, round robin."""
        waiting, consumers = self._queues[queue], self._consumers[queue]
        while waiting and consumers:
            pod = consumers.popleft()
            pod.credit[queue] -= 1
            if pod.credit[queue]:
                consumers.append(pod)
            pod.held.append(waiting.popleft())
            self._start(pod, now_s)

    def _start(self, pod: _Pod, now_s: float) -> None:
        while pod.held and len(pod.running) < pod.slots:
            task, state = pod.held.popleft(), self._state
            if not task.begun:
                kernel._record_wait(state.n, state.x, state.waits, task.came_s, now_s)  # noqa: SLF001 - uncompiled
            task.begun, task.end_s = True, now_s + task.service_s
            state.x[kernel.LAST_END] = max(state.x[kernel.LAST_END], task.end_s)
            state.x[kernel.WORK_SUM] += task.service_s
            pod.running.append(task)
            self._at(task.end_s, lambda at_s, task=task: self._end(pod, task, at_s))  # type: ignore[misc]

    def _end(self, pod: _Pod, task: _Task, now_s: float) -> None:
        if task not in pod.running:  # it was killed
            return
        pod.running.remove(task)
        self._done[task.queue] += 1
        if not pod.gone:
            pod.credit[task.queue] += 1
            if pod not in self._consumers[task.queue]:
                self._consumers[task.queue].append(pod)
            self._start(pod, now_s)
            self._send(task.queue, now_s)

    def _kill(self, pod: _Pod, task: _Task, now_s: float) -> None:
        pod.running.remove(task)
        self._give_back([task], now_s)

    def _give_back(self, tasks: list[_Task], now_s: float) -> None:
        """Return tasks to the heads of their queues."""
        for task in reversed(tasks):
            self._queues[task.queue].appendleft(task)
        for queue in {task.queue for task in tasks}:
            self._send(queue, now_s)
