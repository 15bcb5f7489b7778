"""Several RabbitMQ nodes on one machine, each in its own network namespace, connected by a bridge.

    this namespace: API, workers, Redis, clients -- bridge 10.77.0.254 --+-- 10.77.0.1 (node 1)
                                                                          +-- 10.77.0.2 (node 2) ...

Use it only in a network namespace made for the run (tests/chaos/namespaces.py): nothing here is undone.
"""

import secrets
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

from ops.files import write_private
from ops.management import Management
from ops.servers.child import POLL_S, Child, until
from ops.servers.programs import Programs
from ops.servers.rabbitmq import RabbitMQ

BRIDGE = "brokers"
HERE = "10.77.0.254"
# The default ports: each node has its own namespace, and nodes of a cluster look for each other on one EPMD port.
AMQP, MANAGEMENT, DISTRIBUTION, EPMD = 5672, 15672, 25672, 4369
# Each call starts an Erlang virtual machine: on a busy machine this has taken over a minute.
TOOL_TIMEOUT_S = 180.0
ANSWER_DEADLINE_S = 60.0


class Node(RabbitMQ):
    """A node; `number` counts from 1."""

    ports = (AMQP, MANAGEMENT, DISTRIBUTION, EPMD)

    def __init__(self, number: int, folder: Path, programs: Programs, hosts: list[str], **options: Any) -> None:
        self.host = hosts[number - 1]
        self.name = f"sluice@{self.host}"
        self.cable = f"node{number}"
        holder = ["unshare", "--net", "sleep", "infinity"]
        self._namespace = Child(f"namespace of node {number}", holder, log=folder / "namespace.log", env={})
        self._namespace.start()
        self.enter = ("nsenter", f"--net=/proc/{self._namespace.pid}/ns/net", "--")
        self._tools = programs.rabbitmq_server.parent
        self.more_configuration = [
            "cluster_formation.peer_discovery_backend = classic_config",
            *(f"cluster_formation.classic_config.nodes.{i} = sluice@{host}" for i, host in enumerate(hosts, 1)),
            "cluster_partition_handling = pause_minority",  # for 3.10; 4.3 does not need it
        ]
        super().__init__(folder, programs, **options)
        self.management = Management(self.management.url, self.management.user, self.password, deadline_s=4.0)

    def attach(self) -> None:
        """Connect the namespace with the bridge."""
        ours = Path("/proc/self/ns/net").readlink()
        until(lambda: Path(f"/proc/{self._namespace.pid}/ns/net").readlink() != ours, 10.0, "a network namespace")
        run("ip", "link", "add", self.cable, "type", "veth", "peer", "name", "eth0", "netns", str(self._namespace.pid))
        run("ip", "link", "set", self.cable, "master", BRIDGE, "up")
        for command in (("address", "add", f"{self.host}/24", "dev", "eth0"), ("link", "set", "eth0", "up")):
            run(*self.enter, "ip", *command)
        run(*self.enter, "ip", "link", "set", "lo", "up")

    def cut(self) -> None:
        """Disconnect the node from the network, without any notice to its peers."""
        run("ip", "link", "set", self.cable, "down")

    def splice(self) -> None:
        """Reconnect the node."""
        run("ip", "link", "set", self.cable, "up")

    def part_from(self, others: list["Node"]) -> None:
        """Drop packets from these nodes; clients still reach the node."""
        for other in others:
            run(*self.enter, "iptables", "-A", "INPUT", "-s", other.host, "-j", "DROP")

    def rejoin(self) -> None:
        """Accept packets from all nodes again."""
        run(*self.enter, "iptables", "-F", "INPUT")

    def tool(self, program: str, *arguments: str) -> str:
        """Run a tool of RabbitMQ on this node; returns its output. RuntimeError if it fails."""
        return run(*self.command(self._tools / program, *arguments), env=self.environment)

    def wipe(self) -> None:
        """Delete the data of a stopped node."""
        shutil.rmtree(self.folder / "data")


class Cluster:
    """A cluster of `count` nodes, at least one."""

    def __init__(self, count: int, folder: Path, programs: Programs, root: Path | None) -> None:
        run("ip", "link", "add", BRIDGE, "type", "bridge")
        run("ip", "address", "add", f"{HERE}/24", "dev", BRIDGE)
        run("ip", "link", "set", BRIDGE, "up")
        hosts = [f"10.77.0.{number}" for number in range(1, count + 1)]
        options = {"password": secrets.token_urlsafe(24), "root": root}
        self.nodes = [Node(i, folder / f"node{i}", programs, hosts, **options) for i in range(1, count + 1)]
        cookie = secrets.token_hex(20)
        for node in self.nodes:
            node.attach()
            write_private(node.folder / ".erlang.cookie", cookie)

    def start(self) -> None:
        """Start all stopped nodes, and wait until all nodes form one cluster. Unusable if they do not."""
        stopped = [node for node in self.nodes if not node.node.alive]
        for node in stopped:
            node.launch()
        for node in stopped:
            node.wait_ready()
        until(self._together, ANSWER_DEADLINE_S, "the RabbitMQ cluster")

    def _together(self) -> bool:
        running = [node for node in self.ask("/api/nodes") if node["running"]]
        return len(running) == len(self.nodes)

    def stop(self) -> None:
        """Stop all nodes."""
        for node in self.nodes:
            node.kill()
            node.stop()

    def ask(self, path: str, method: str = "GET", body: object = None) -> Any:
        """Ask the management API of any node that answers. OSError if none answers for a minute."""
        end = time.monotonic() + ANSWER_DEADLINE_S
        while True:
            for node in self.nodes:
                try:
                    return node.management(path, method, body)
                except OSError:
                    if time.monotonic() > end:
                        raise
            time.sleep(POLL_S)

    @property
    def addresses(self) -> list[tuple[str, int]]:
        """Return host and port of each node."""
        return [(node.host, node.port) for node in self.nodes]

    def leader(self, vhost: str, queue: str) -> Node:
        """Return the node with the leader of a queue."""
        end = time.monotonic() + ANSWER_DEADLINE_S
        while time.monotonic() < end:
            name = self.ask(f"/api/queues/{vhost}/{queue}").get("leader")
            for node in self.nodes:
                if node.name == name:
                    return node
            time.sleep(POLL_S)
        raise TimeoutError(f"{queue} has had no leader for {ANSWER_DEADLINE_S:g} s")

    def others(self, node: Node) -> list[Node]:
        """Return all nodes except this one."""
        return [other for other in self.nodes if other is not node]

    def replace(self, node: Node) -> None:
        """Bring back a node that lost its disk, with its old name: the other nodes must forget the old one first."""
        other = self.others(node)[0]
        other.tool("rabbitmqctl", "forget_cluster_node", node.name)
        node.start()

        def complete() -> bool:
            other.tool("rabbitmq-queues", "grow", node.name, "all")
            queues = [queue for queue in self.ask("/api/queues") if queue.get("type") == "quorum"]
            return all(len(queue.get("members", ())) == len(self.nodes) for queue in queues)

        until(complete, ANSWER_DEADLINE_S, f"the queues' members at {node.name}")


def run(*command: str | Path, env: dict[str, str] | None = None) -> str:
    """Run a command; returns its output. RuntimeError with the end of its output if it fails."""
    done = subprocess.run(
        [str(part) for part in command], capture_output=True, text=True, check=False, timeout=TOOL_TIMEOUT_S, env=env
    )
    if done.returncode != 0:
        said = (done.stderr.strip() or done.stdout.strip())[-500:]
        raise RuntimeError(f"{' '.join(map(str, command[-4:]))}: {said}")
    return done.stdout
