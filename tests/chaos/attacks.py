"""Attacks by a client, a message or a server, as faults: each lasts for a time and then ends.

Those in FAULTS are also in the schedules of `make chaos`; the others only in `make abuse`.
"""

import json
from collections.abc import Iterator
from typing import Any

import kombu

from apps.contract import topology
from tests.chaos.cluster import run
from tests.chaos.faults import ATTACKS, Harm, fault
from tests.chaos.world import LEDGER_FILE, World
from tests.harness.fork_server import Forked
from tests.harness.simple_tasks import WORK_QUEUE
from tests.harness.system import until

# Messages of each kind per queue, published when the fault begins.
MESSAGES = 5
STOP_S = 10.0
NODE_S = 60.0


def _attack(kind: str, world: World) -> Iterator[Harm]:
    urls = ",".join(api.url for api in world.apis)
    env = world.system.environment(
        "api", CHAOS_APIS=urls, CHAOS_KEY=world.greedy_key, CHAOS_LEDGER=str(world.folder / LEDGER_FILE)
    )
    log = world.folder / f"{kind}.log"
    attacker = Forked(world.system.servers.fork_server, kind, ["tests.chaos.attacker", kind], log=log, env=env)
    attacker.start()
    yield Harm("both APIs")
    if not attacker.alive:
        raise RuntimeError(f"the attacker ended: {attacker.last_lines(3)}")
    attacker.stop(STOP_S)


@fault("greedy-client", "queue", seconds=(2, 15))
def greedy_client(world: World, choice: float) -> Iterator[Harm]:  # noqa: ARG001 - signature of a fault
    """Posts batches over 64 connections with one key, as fast as they are answered."""
    yield from _attack("greedy-client", world)


@fault("slow-heads", seconds=(5, 20), of=ATTACKS)
def slow_heads(world: World, choice: float) -> Iterator[Harm]:  # noqa: ARG001
    yield from _attack("slow-heads", world)


@fault("slow-bodies", seconds=(5, 20), of=ATTACKS)
def slow_bodies(world: World, choice: float) -> Iterator[Harm]:  # noqa: ARG001
    yield from _attack("slow-bodies", world)


@fault("many-streams", seconds=(5, 20), of=ATTACKS)
def many_streams(world: World, choice: float) -> Iterator[Harm]:  # noqa: ARG001
    yield from _attack("many-streams", world)


@fault("heavy-bodies", seconds=(5, 20), of=ATTACKS)
def heavy_bodies(world: World, choice: float) -> Iterator[Harm]:  # noqa: ARG001
    yield from _attack("heavy-bodies", world)


@fault("malformed-messages", "queue", seconds=(2, 10))
def malformed_messages(world: World, choice: float) -> Iterator[Harm]:  # noqa: ARG001
    """Publishes malformed messages of each kind to every consumed queue."""
    queues = (*topology.WORK_QUEUES, topology.DEAD_QUEUE, topology.PARKED_QUEUE)
    # Another fault may have killed the nodes.
    (node, *_) = until(lambda: [each for each in world.cluster.nodes if each.node.alive], NODE_S, "a running node")
    url = node.url(vhost=world.system.vhost)
    with kombu.Connection(url, transport_options={"confirm_publish": True}) as connection:
        channel = connection.channel()
        for queue in queues:
            for _ in range(MESSAGES):
                for body, properties in _malformed():
                    channel.basic_publish(channel.prepare_message(body, **properties), "", queue)
    yield Harm(f"{len(queues)} queues")


def _malformed() -> list[tuple[bytes, dict[str, Any]]]:
    """Return bodies with kombu's options for their messages."""
    task = {"task": f"{WORK_QUEUE}:work", "id": "no-id", "lang": "py", "argsrepr": "()", "kwargsrepr": "{}"}
    json_body = json.dumps([[{"task": "work"}], {}, {}]).encode()
    plain = {"content_type": "application/json", "content_encoding": "utf-8"}
    return [
        (b"", {}),
        (b"\xff\x00\xfe", {}),
        (json_body, {}),
        (json_body, {"headers": {"x-death": "abc"}} | plain),
        (json_body, {"headers": task | {"x-death": [1, "a"]}} | plain),
        (json_body, {"headers": task | {"id": 17, "publish_id": 3}} | plain),
        (json_body, {"headers": task | {"task": {"a": 1}}} | plain),
        (json_body, {"headers": task | {"publish_id": "p"}, "content_encoding": "no-such"} | {"content_type": "a/b"}),
        (b"[" * 10_000, {"headers": task | {"publish_id": "p"}} | plain),
        (b"null", {"headers": task | {"publish_id": "p", "eta": "never", "expires": [1]}} | plain),
        (json_body, {"headers": task | {"publish_id": "p", "compression": "application/x-gzip"}} | plain),
    ]


@fault("silent-redis", "redis", seconds=(1, 30))
def silent_redis(world: World, choice: float) -> Iterator[Harm]:  # noqa: ARG001
    """The network drops packets to Redis: open connections become silent, and no new ones can be opened."""
    rule = ("INPUT", "-p", "tcp", "--dport", str(world.redis.port), "-j", "DROP")
    run("iptables", "-A", *rule)
    yield Harm("Redis")
    run("iptables", "-D", *rule)
