"""The pods of a Deployment: created, placed on nodes, ready, removed; each has the task slots of its worker."""

from dataclasses import dataclass
from fractions import Fraction

from sluice_planner.kernel import Integers
from sluice_planner.workers import Workers
from sluice_planner.workload import Pod


class Nodes:
    """Free CPUs and bytes of each node. Without any node the room is unlimited."""

    def __init__(self, sizes: tuple[tuple[Fraction, Fraction], ...] = ()) -> None:
        self._free = [list(size) for size in sizes]

    def place(self, pod: Pod) -> int | None:
        """Place a pod on the first node with room. None: the pod stays pending."""
        if not self._free:
            return -1
        for number, free in enumerate(self._free):
            if pod.cpu <= free[0] and pod.memory <= free[1]:
                self._take(number, pod, 1)
                return number
        return None

    def leave(self, node: int, pod: Pod) -> None:
        if self._free:
            self._take(node, pod, -1)

    def _take(self, node: int, pod: Pod, sign: int) -> None:
        self._free[node][0] -= sign * pod.cpu
        self._free[node][1] -= sign * pod.memory


@dataclass
class _Instance:
    """A pod: pending without a node, ready from `ready_s`, ended at `end_s`."""

    node: int | None
    placed_s: float
    ready_s: float
    slots: Integers | None
    end_s: float = float("inf")


class Pods:
    """The pods of one ReplicaSet."""

    def __init__(self, pod: Pod, nodes: Nodes, workers: Workers, start_s: float) -> None:
        self._pod, self._nodes, self._workers, self._start_s = pod, nodes, workers, start_s
        self._live: list[_Instance] = []
        self._ending: list[_Instance] = []
        self._over_s = 0.0

    def scale(self, replicas: int, now_s: float, start_s: float | None = None) -> None:
        """Create or remove pods until there are so many. `start_s` replaces the start time of new pods."""
        while len(self._live) < replicas:
            pod = _Instance(None, now_s, float("inf"), None)
            self._place(pod, now_s, self._start_s if start_s is None else start_s)
            self._live.append(pod)
        if len(self._live) > replicas:
            # as a ReplicaSet does: remove pending pods first, then unready ones, then those that became ready last
            self._live.sort(key=lambda pod: (pod.node is None, pod.ready_s > now_s, pod.ready_s))
            for pod in self._live[replicas:]:
                self._end(pod, now_s)
            del self._live[replicas:]

    def tick(self, now_s: float) -> None:
        """Free the nodes of ended pods, and place pending pods."""
        over = [pod for pod in self._ending if pod.end_s <= now_s]
        if over:
            self._ending = [pod for pod in self._ending if pod.end_s > now_s]
            for pod in over:
                self._forget(pod)
        for pod in self._live:
            if pod.node is None:
                self._place(pod, now_s, self._start_s)

    def ready(self, now_s: float) -> int:
        """The number of ready pods."""
        return sum(pod.ready_s <= now_s for pod in self._live)

    @property
    def count(self) -> int:
        """The number of pods, without terminating ones."""
        return len(self._live)

    @property
    def all_ready_s(self) -> float:
        """The time since which all pods are ready."""
        return max(pod.ready_s for pod in self._live)

    @property
    def pending(self) -> int:
        """The number of pods without a node."""
        return sum(pod.node is None for pod in self._live)

    @property
    def ending(self) -> int:
        """The number of terminating pods."""
        return len(self._ending)

    def seconds(self, now_s: float) -> float:
        """The total time that pods occupied a node."""
        held = sum(now_s - pod.placed_s for pod in self._live if pod.node is not None)
        return self._over_s + held + sum(min(now_s, pod.end_s) - pod.placed_s for pod in self._ending)

    def _place(self, pod: _Instance, now_s: float, start_s: float) -> None:
        pod.node = self._nodes.place(self._pod)
        if pod.node is not None:
            pod.placed_s, pod.ready_s = now_s, now_s + start_s
            pod.slots = self._workers.add(self._pod.concurrency, pod.ready_s)

    def _end(self, pod: _Instance, now_s: float) -> None:
        if pod.slots is not None:
            pod.end_s = self._workers.retire(pod.slots, now_s, self._pod.grace_s)
            self._ending.append(pod)

    def _forget(self, pod: _Instance) -> None:
        assert pod.node is not None  # noqa: S101 - only placed pods are ending
        self._nodes.leave(pod.node, self._pod)
        self._over_s += pod.end_s - pod.placed_s
