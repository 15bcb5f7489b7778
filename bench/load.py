"""The load generators: wrk for what is possible, vegeta for how late an answer is at a fixed rate."""

import base64
import json
import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

from bench.apps.model import BODY
from bench.server import Server
from ops import tools
from ops.apt import apt_install
from ops.servers.programs import find

POST = Path(__file__).parent / "post.lua"
BATCH_TASKS = 1000


class Wrong(Exception):
    """A measurement that is none: some answers were errors."""


class Refused(Wrong):
    """They were refusals, with 503, and nothing else was wrong."""


@dataclass(frozen=True)
class Rate:
    """What a server did under closed-loop load."""

    per_s: float
    cpu_us: float
    """Of the server, for each request."""
    core: float
    """How much of one the server used."""


def wrk(server: Server, connections: int, seconds: float, *, batch: bool = False) -> Rate:
    """As many posts as it answers. Raises Wrong unless each is a 202."""
    if find("wrk") is None:
        apt_install(["wrk"])
    environment = os.environ | {"KEY": server.key, "TASK": BODY, "BATCH": str(BATCH_TASKS if batch else 0)}
    command = ["wrk", "--threads", "1", "--connections", str(connections), "--duration", f"{seconds:.0f}s"]
    command += ["--timeout", "10s", "--script", str(POST), server.url + ("/tasks/batch" if batch else "/tasks")]
    before_s = server.cpu_s
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=seconds + 60)  # noqa: S603
    cpu_s = server.cpu_s - before_s
    found = re.search(r"(\d+) requests in ([\d.]+)(m?s)", done.stdout)
    if found is None or "Non-2xx" in done.stdout or "Socket errors" in done.stdout:
        raise Wrong(f"{server.name}: {done.stdout}{done.stderr}")
    requests, took_s = int(found[1]), float(found[2]) / (1000 if found[3] == "ms" else 1)
    return Rate(requests / took_s, cpu_s / requests * 1e6, cpu_s / took_s)


def vegeta_p99_ms(server: Server, rate_per_s: int, seconds: int) -> float:
    """The 99th percentile at a fixed rate, whatever the answers take. Raises Wrong unless each is a 202."""
    vegeta = tools.built("vegeta")
    attack = [str(vegeta), "attack", "-format=json", f"-rate={rate_per_s}", f"-duration={seconds}s"]
    done = subprocess.run(attack, input=_target(server), capture_output=True, check=True, timeout=seconds + 60)  # noqa: S603
    report = subprocess.run([str(vegeta), "report", "-type=json"], input=done.stdout, capture_output=True, check=True)  # noqa: S603
    found = json.loads(report.stdout)
    codes = set(found["status_codes"])
    if codes != {"202"}:
        wrong = Refused if codes == {"202", "503"} else Wrong
        raise wrong(f"{server.name} at {rate_per_s}/s: {found['status_codes']} {found['errors'][:3]}")
    return float(found["latencies"]["99th"] / 1e6)


def _target(server: Server) -> bytes:
    header = {"Content-Type": ["application/json"], "Authorization": [f"Bearer {server.key}"]}
    body = base64.b64encode(BODY.encode()).decode()
    target = {"method": "POST", "url": f"{server.url}/tasks", "header": header, "body": body}
    return json.dumps(target).encode() + b"\n"
