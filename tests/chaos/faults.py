"""The faults by name. Each is a context manager: it injects the fault, and at the end undoes it and waits for the port.

`parts` are what a fault disables. Two simultaneous faults never share a part: undoing one would undo the other.
"""

import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import psutil

from ops.servers.child import Child
from tests.chaos.cluster import Node
from tests.chaos.weakened import KILL_UNSTORED, TAKEN
from tests.chaos.world import World
from tests.harness.simple_tasks import WORK_QUEUE
from tests.harness.system import Api, until

READY_S = 90.0
UPDATE_S = 10.0
# An empty Redis has room for the result of any task, so that no result is too large.
LEAST_MEMORY_BYTES = 8 * 1024 * 1024
FILLING_BYTES = 64 * 1024
# Above the share at which posts are refused; results of tasks that were accepted before fill the rest.
NEARLY_FULL = 0.95


@dataclass
class Harm:
    """The target of a fault, and the processes that it killed."""

    target: str
    victims: tuple[int, ...] = ()


Make = Callable[[World, float], AbstractContextManager[Harm]]


@dataclass(frozen=True)
class Fault:
    """A kind of fault, which lasts `min_s` to `max_s` and needs at least `nodes` nodes of the broker."""

    name: str
    parts: frozenset[str]
    min_s: float
    max_s: float
    nodes: int
    make: Make


FAULTS: dict[str, Fault] = {}
# Additional faults of `make abuse`; no schedule of `make chaos` contains them.
ATTACKS: dict[str, Fault] = {}


def named(name: str) -> Fault:
    """Return a fault or an attack by its name."""
    return FAULTS.get(name) or ATTACKS[name]


def fault(
    name: str, *parts: str, seconds: tuple[float, float], nodes: int = 1, of: dict[str, Fault] = FAULTS
) -> Callable[[Any], Any]:
    """Register a generator function as a fault."""

    def register(function: Callable[[World, float], Iterator[Harm]]) -> Any:
        of[name] = Fault(name, frozenset(parts), *seconds, nodes, contextmanager(function))
        return function

    return register


def _one(of: list[Any], choice: float) -> Any:
    return of[int(choice * len(of))]


def _children(child: Child) -> list[psutil.Process]:
    with suppress(psutil.NoSuchProcess):
        return psutil.Process(child.pid).children()
    return []


def pids(worker: Child) -> tuple[int, ...]:
    """Return the ids of a worker and its children."""
    return (worker.pid, *(child.pid for child in _children(worker)))


# Processes of this project


@fault("kill-child", "workers", seconds=(0, 0))
def kill_child(world: World, choice: float) -> Iterator[Harm]:
    worker = _one(world.workers, choice)
    children = until(lambda: _children(worker), READY_S, "a child of the worker")
    victim = _one(children, choice * 7 % 1)
    with suppress(psutil.NoSuchProcess):
        victim.kill()
    yield Harm(world.name(worker), (victim.pid,))


@fault("kill-worker", "workers", seconds=(0, 10))
def kill_worker(world: World, choice: float) -> Iterator[Harm]:
    worker = _one(world.workers, choice)
    victims = pids(worker)
    worker.kill()
    yield Harm(world.name(worker), victims)
    world.restart(worker)


@fault("kill-unstored", "workers", seconds=(0, 10))
def kill_unstored(world: World, choice: float) -> Iterator[Harm]:  # noqa: ARG001 - the first worker with a result
    """Kills the next worker that has a result to store, just before it stores it."""
    order = world.folder / KILL_UNSTORED
    done = order.with_suffix(TAKEN)
    order.touch()
    until(done.exists, READY_S, "a worker with a result to store")
    (worker, *_) = until(lambda: [one for one in world.workers if not one.alive], READY_S, "its end")
    victims = tuple(map(int, done.read_text().split()))
    done.unlink()
    worker.kill()  # reaps the process
    yield Harm(world.name(worker), victims)
    world.restart(worker)


@fault("pause-worker", "workers", seconds=(1, 40))
def pause_worker(world: World, choice: float) -> Iterator[Harm]:
    """After two missed heartbeats the broker delivers the worker's tasks to others, while the worker still has them."""
    worker = _one(world.workers, choice)
    group = [*_children(worker), psutil.Process(worker.pid)]
    for process in group:
        with suppress(psutil.NoSuchProcess):
            process.suspend()
    yield Harm(world.name(worker))
    for process in group:  # children first: they finish tasks before the worker notices the lost connection
        with suppress(psutil.NoSuchProcess):
            process.resume()


@fault("kill-api", "apis", seconds=(0, 10))
def kill_api(world: World, choice: float) -> Iterator[Harm]:
    api = _one(world.apis, choice)
    world.scrape(api)
    victim = api.child.pid
    api.child.kill()
    yield Harm(world.name(api.child), (victim,))
    _start_api(world, api)


@fault("kill-recorder", "recorder", seconds=(0, 10))
def kill_recorder(world: World, choice: float) -> Iterator[Harm]:  # noqa: ARG001 - there is one
    victim = world.recorder.pid
    world.recorder.kill()
    yield Harm("recorder", (victim,))
    world.restart(world.recorder)


@fault("restart-ours", "apis", "workers", seconds=(0, 0))
def restart_ours(world: World, choice: float) -> Iterator[Harm]:  # noqa: ARG001 - all of them
    """Like a rolling update: SIGTERM, and the next process once the last one is ready again."""
    yield Harm("all", tuple(pid for worker in world.workers for pid in pids(worker)))
    deaf = []
    for api in world.apis:
        world.scrape(api)
        if not api.child.stop():
            deaf.append(world.name(api.child))
        _start_api(world, api)
    for worker in world.workers:
        if not worker.stop(READY_S):
            deaf.append(world.name(worker))
        world.restart(worker)
        with suppress(AssertionError):  # another fault may have stopped the broker
            world.system.wait_ready(worker, UPDATE_S)
    if deaf:
        raise RuntimeError(f"did not end by SIGTERM: {', '.join(deaf)}")


@fault("clock-step", "apis", seconds=(5, 20))
def clock_step(world: World, choice: float) -> Iterator[Harm]:
    """Up to 50 minutes forward or back; results are kept an hour longer than promised because of such clocks."""
    offset_s = round((choice - 0.5) * 2 * 50 * 60)
    world.step_clock(offset_s)
    yield Harm(f"{world.name(world.apis[1].child)} {offset_s:+d} s")
    world.step_clock(0)


def _start_api(world: World, api: Api) -> None:
    world.restart(api.child)
    until(lambda: api.get("/livez") == 200, READY_S, "the API's port")


# Redis


@fault("pause-redis", "redis", seconds=(1, 40))
def pause_redis(world: World, choice: float) -> Iterator[Harm]:  # noqa: ARG001
    world.redis.suspend()
    yield Harm("Redis")
    world.redis.resume()


@fault("restart-redis", "redis", seconds=(0, 10))
def restart_redis(world: World, choice: float) -> Iterator[Harm]:  # noqa: ARG001
    world.redis.stop()
    yield Harm("Redis")
    world.redis.start()


@fault("kill-redis", "redis", seconds=(0, 10))
def kill_redis(world: World, choice: float) -> Iterator[Harm]:  # noqa: ARG001
    """Kills only the process: data in the kernel's page cache is kept."""
    world.redis.kill()
    yield Harm("Redis")
    world.redis.start()


@fault("fill-redis", "redis", seconds=(2, 15))
def fill_redis(world: World, choice: float) -> Iterator[Harm]:  # noqa: ARG001
    """At maxmemory, Redis refuses commands that need memory."""
    world.system.redis.config_set("maxmemory", _used_bytes(world))
    yield Harm("Redis")
    world.system.redis.config_set("maxmemory", 0)


@fault("crowd-redis", "redis", seconds=(2, 15))
def crowd_redis(world: World, choice: float) -> Iterator[Harm]:  # noqa: ARG001
    """Above the limit for posts; results of running tasks fill the rest."""
    world.system.redis.config_set("maxmemory", int(_used_bytes(world) / NEARLY_FULL))
    yield Harm("Redis")
    world.system.redis.config_set("maxmemory", 0)


def _used_bytes(world: World) -> int:
    """Fill Redis up to LEAST_MEMORY_BYTES; returns its used memory."""
    redis = world.system.redis
    memory: Any = redis.info("memory")
    for number in range(max(0, LEAST_MEMORY_BYTES - int(memory["used_memory"])) // FILLING_BYTES + 1):
        redis.set(f"filling-{number}", "x" * FILLING_BYTES)
    memory = redis.info("memory")
    return int(memory["used_memory"])


# The broker's nodes


@fault("pause-broker", "broker", seconds=(1, 40))
def pause_broker(world: World, choice: float) -> Iterator[Harm]:  # noqa: ARG001
    for node in world.cluster.nodes:
        node.suspend()
    yield Harm("all nodes")
    for node in world.cluster.nodes:
        node.resume()


@fault("pause-leader", "broker", seconds=(1, 40), nodes=3)
def pause_leader(world: World, choice: float) -> Iterator[Harm]:  # noqa: ARG001
    node = _leader(world)
    node.suspend()
    yield Harm(node.name)
    node.resume()


@fault("restart-broker", "broker", seconds=(0, 5))
def restart_broker(world: World, choice: float) -> Iterator[Harm]:  # noqa: ARG001
    for node in world.cluster.nodes:
        node.node.signal(signal.SIGTERM)
    for node in world.cluster.nodes:
        node.node.stop(READY_S)
    yield Harm("all nodes")
    world.cluster.start()


@fault("kill-broker", "broker", seconds=(0, 5))
def kill_broker(world: World, choice: float) -> Iterator[Harm]:  # noqa: ARG001
    for node in world.cluster.nodes:
        node.kill()
    yield Harm("all nodes")
    world.cluster.start()


@fault("kill-leader", "broker", seconds=(0, 15), nodes=3)
def kill_leader(world: World, choice: float) -> Iterator[Harm]:  # noqa: ARG001
    node = _leader(world)
    node.kill()
    yield Harm(node.name)
    node.start()


@fault("roll-broker", "broker", seconds=(0, 0), nodes=3)
def roll_broker(world: World, choice: float) -> Iterator[Harm]:  # noqa: ARG001
    yield Harm("each node")
    for node in world.cluster.nodes:
        node.node.stop(READY_S)
        node.start()


@fault("lose-disk", "broker", seconds=(1, 10), nodes=3)
def lose_disk(world: World, choice: float) -> Iterator[Harm]:
    node = _one(world.cluster.nodes, choice)
    node.kill()
    node.wipe()
    yield Harm(node.name)
    world.cluster.replace(node)


@fault("cut-node", "broker", seconds=(1, 40), nodes=3)
def cut_node(world: World, choice: float) -> Iterator[Harm]:
    """Neither other nodes nor clients can reach the node."""
    node = _one(world.cluster.nodes, choice)
    node.cut()
    yield Harm(node.name)
    node.splice()


@fault("part-node", "broker", seconds=(1, 40), nodes=3)
def part_node(world: World, choice: float) -> Iterator[Harm]:
    """Clients can reach the node, but it can reach no other node."""
    node = _one(world.cluster.nodes, choice)
    node.part_from(world.cluster.others(node))
    yield Harm(node.name)
    node.rejoin()


@fault("disk-alarm", "broker", seconds=(2, 15))
def disk_alarm(world: World, choice: float) -> Iterator[Harm]:
    node = _one(world.cluster.nodes, choice)
    node.tool("rabbitmqctl", "set_disk_free_limit", "100000GB")
    yield Harm(node.name)
    node.tool("rabbitmqctl", "set_disk_free_limit", "50MB")


@fault("memory-alarm", "broker", seconds=(2, 15))
def memory_alarm(world: World, choice: float) -> Iterator[Harm]:
    node = _one(world.cluster.nodes, choice)
    node.tool("rabbitmqctl", "set_vm_memory_high_watermark", "absolute", "10MB")
    yield Harm(node.name)
    node.tool("rabbitmqctl", "set_vm_memory_high_watermark", "0.6")


@fault("fill-queue", "broker", seconds=(2, 15))
def fill_queue(world: World, choice: float) -> Iterator[Harm]:  # noqa: ARG001
    """Lowers the queue's limit below its length, so that it refuses new messages."""
    world.limit_queues(max_length_messages=1)
    yield Harm(WORK_QUEUE)
    world.limit_queues()


@fault("unbind", "broker", seconds=(1, 5))
def unbind(world: World, choice: float) -> Iterator[Harm]:  # noqa: ARG001
    """An operator's mistake: messages have no route."""
    ask = world.cluster.ask
    place = f"/api/bindings/{world.system.vhost}/e/sluice/q/{WORK_QUEUE}"
    bindings = ask(place)  # our binding, and the binding for delayed retries
    for binding in bindings:
        ask(f"{place}/{binding['properties_key']}", "DELETE")
    yield Harm(WORK_QUEUE)
    for binding in bindings:
        ask(place, "POST", {name: binding[name] for name in ("routing_key", "arguments")})


def _leader(world: World) -> Node:
    return world.cluster.leader(world.system.vhost, WORK_QUEUE)


# The network between this project's processes and the broker


@fault("reset-api", "api-network", seconds=(0, 5))
def reset_api(world: World, choice: float) -> Iterator[Harm]:  # noqa: ARG001
    world.api_proxy.reset()
    yield Harm("both APIs")
    world.api_proxy.heal()


@fault("silence-api", "api-network", seconds=(1, 30))
def silence_api(world: World, choice: float) -> Iterator[Harm]:  # noqa: ARG001
    world.api_proxy.silence()
    yield Harm("both APIs")
    world.api_proxy.heal()


@fault("reset-workers", "worker-network", seconds=(0, 5))
def reset_workers(world: World, choice: float) -> Iterator[Harm]:  # noqa: ARG001
    world.worker_proxy.reset()
    yield Harm("workers, recorder")
    world.worker_proxy.heal()


@fault("silence-workers", "worker-network", seconds=(1, 40))
def silence_workers(world: World, choice: float) -> Iterator[Harm]:  # noqa: ARG001
    world.worker_proxy.silence()
    yield Harm("workers, recorder")
    world.worker_proxy.heal()
