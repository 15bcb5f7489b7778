"""The load generators: wrk measures the maximum rate, and vegeta measures latency at a fixed rate."""

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
    """The measurement is invalid, because some answers were errors."""


class Refused(Wrong):
    """All errors were refusals with status 503."""


@dataclass(frozen=True)
class Rate:
    """The result of a closed-loop load."""

    per_s: float
    cpu_us: float
    """CPU time of the server per request, in microseconds."""
    core: float
    """CPU time of the server per second, in cores."""


def wrk(server: Server, connections: int, seconds: float, *, batch: bool = False) -> Rate:
    """Post tasks at the maximum rate for some seconds. Raises Wrong unless every answer is a 202."""
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
    """Post tasks at a fixed rate (open loop), and return the p99 latency in milliseconds.

    Raises Refused if the only errors are 503, and Wrong if any other answer is not a 202.
    """
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
