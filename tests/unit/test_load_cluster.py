"""If a cluster's metrics are unavailable for a while, the charts have a gap and continue after it."""

import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import product
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from apps.contract import topology
from loadtest import cluster_target
from loadtest.ledger import Ledger
from loadtest.sample import Usage
from loadtest.sampler import Sampler
from ops import cluster as kubernetes
from ops import forward

POD = {
    "podRef": {"namespace": "celery-workers", "name": "celery-worker-1"},
    "cpu": {"usageCoreNanoSeconds": 2_000_000_000},
    "memory": {"workingSetBytes": 3_000_000},
}
# A pod that is being deleted: the kubelet does not report its usage.
GOING = {"podRef": {"namespace": "celery-workers", "name": "celery-worker-2"}}
ANSWERS = {
    "/api/v1/nodes": {"items": [{"metadata": {"name": "one"}}]},
    "/api/v1/nodes/one/proxy/stats/summary": {"pods": [POD, GOING]},
    cluster_target.SCALER: {"spec": {"maxReplicaCount": 30}},
    cluster_target.WORKER: {"status": {"readyReplicas": 3}},
    "/api/overview": {"rabbitmq_version": "4.3.0"},
    "/api/queues/%2F": [{"name": name, "messages_ready": 1} for name in topology.QUEUES],
}
KINDS = ("closes", "is half", "breaks off", "410", "503")
PATHS = (cluster_target.SCALER, "/api/v1/nodes/one/proxy/stats/summary", "/api/queues/%2F")
# Answers by its first arguments; all forwarded ports lead to the scripted server. API_KEYS load:key, password word.
KUBECTL = """#!/bin/sh
case "$1 $2" in
    "proxy "*) echo "Starting to serve on 127.0.0.1:{port}"; exec sleep 60 ;;
    "port-forward "*) echo "Forwarding from 127.0.0.1:{port} -> 15672"; exec sleep 60 ;;
    "get secret") echo '{{"data": {{"API_KEYS": "bG9hZDprZXk=", "username": "a2VkYQ==", "password": "d29yZA=="}}}}' ;;
    "get ingress") echo '{{"spec": {{"rules": [{{"host": "tasks.example.com"}}]}}}}' ;;
    "config "*) echo scripted ;;
esac
"""


class Server(ThreadingHTTPServer):
    """Answers like a cluster, except for a path with a fault."""

    fault: tuple[str, str] | None = None


class Scripted(BaseHTTPRequestHandler):
    """A fault closes the connection, truncates the answer, or answers with an error status."""

    server: Server

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        found: Any = ANSWERS[path]
        body = json.dumps(found).encode()
        kind = self.server.fault[1] if self.server.fault and self.server.fault[0] == path else ""
        if kind == "closes":
            return
        self.send_response(int(kind) if kind.isdigit() else 200)
        if kind != "is half":  # a proxy's answer looks like this if its backend disappears
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: len(body) // 2] if kind in {"is half", "breaks off"} else body)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """The scripted cluster, reached through a scripted kubectl."""
    with Server(("127.0.0.1", 0), Scripted) as running:
        kubectl = tmp_path / "kubectl"
        kubectl.write_text(KUBECTL.format(port=running.server_port))
        kubectl.chmod(0o755)
        for module in (kubernetes, forward):
            monkeypatch.setattr(module, "kubectl", lambda: kubectl)
        thread = Thread(target=running.serve_forever)
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def test_sampler_notes_a_gap_and_continues(server: Server) -> None:
    faults = list(product(PATHS, KINDS))
    with cluster_target.entered("http://scripted") as target:
        sampler = Sampler(target)
        for number, fault in enumerate(faults):
            for at_s, server.fault in ((2 * number, fault), (2 * number + 1, None)):
                sampler.look(at_s, Ledger(), Usage(1.0, 1.0))
    assert [told.partition(" s: ")[0] for told in sampler.missing] == [str(2 * number) for number in range(len(faults))]
    assert [at_s for at_s, _ in sampler.samples] == [2 * number + 1 for number in range(len(faults))]
    last = sampler.samples[-1][1]
    assert (last.ready, last.workers, last.workers_min, last.workers_max) == (2, 3, 0, 30)
    assert last.usage["workers"] == {"celery-worker-1": Usage(2.0, 3.0)}


@pytest.mark.usefixtures("server")
def test_load_is_sent_to_the_host_of_the_ingress() -> None:
    with cluster_target.entered("http://10.0.0.1:30080") as target:
        assert (target.url, target.host) == ("http://10.0.0.1:30080", "tasks.example.com")
