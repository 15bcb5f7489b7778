"""Rules for our own pods: what images, settings and code say of ports, probes, time limits and memory."""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path, PurePosixPath
from typing import Any, cast

from apps.contract.settings import WorkerSettings
from apps.contract.tasks import TASKS
from apps.worker.recorder import CLOSE_DEADLINE_S
from deploy import images
from deploy.validate.pods import Pod, pods
from deploy.validate.quantities import quantity
from deploy.validate.tree import Finding, Object, Tree

# to hand back what a soft shutdown left, to close the connections and to end
HAND_BACK_S = 10
# NGINX's default for the idle connections that it keeps to a server; its ConfigMap has no key for it
NGINX_UPSTREAM_KEEPALIVE_S = 60
API_DOCKERFILE, WORKER_DOCKERFILE = images.IMAGES.values()
PROBES = {"startupProbe": "READINESS_FILE", "livenessProbe": "LIVENESS_FILE", "readinessProbe": "READINESS_FILE"}


@dataclass(frozen=True)
class Process:
    """The one container of one of our pods, and the environment that it is given in plain text."""

    owner: Object
    pod: Pod
    path: str
    container: dict[str, Any]

    @property
    def environment(self) -> Mapping[str, str]:
        """Name -> value."""
        return {each["name"]: each["value"] for each in self.container.get("env") or [] if "value" in each}

    def finding(self, field: str, message: str) -> Finding:
        """Something wrong with the container."""
        return self.owner.finding(f"{self.path}.{field}", message)


def check(tree: Tree) -> Iterator[Finding]:
    """Every one of our Deployments; and that it has an image that is built here."""
    rules = {"api": _api, "celery-worker": _worker, "dead-letter-recorder": _recorder}
    yield from _keep_alive(tree.root)
    for each in tree.objects("Deployment"):
        for process in _processes(each):
            name = process.container["image"].rpartition("/")[2].partition(":")[0]
            if name not in images.IMAGES:
                yield process.finding("image", f"`make images` builds no {name}")
            if each.name in rules and process.container is process.pod.spec["containers"][0]:
                yield from rules[each.name](tree.root, process)


def _processes(each: Object) -> Iterator[Process]:
    for pod in pods(each):
        for path, container in pod.containers():
            yield Process(each, pod, path, container)


def dockerfile_command(root: Path, dockerfile: str) -> list[str]:
    """The CMD in exec form; empty if it has none."""
    match = re.search(r"^CMD (\[.*?\])$", (root / dockerfile).read_text(), re.MULTILINE | re.DOTALL)
    return cast("list[str]", json.loads(match[1].replace("\\\n", ""))) if match else []


def option(command: list[str], name: str) -> str:
    """The value of a command's option; "0" if it is not there."""
    return command[command.index(name) + 1] if name in command else "0"


def _keep_alive(root: Path) -> Iterator[Finding]:
    """The side that reuses a connection gives it up first: else it sends a request into one that is being closed."""
    keep_alive_s = Decimal(option(dockerfile_command(root, API_DOCKERFILE), "--timeout-keep-alive"))
    if keep_alive_s <= NGINX_UPSTREAM_KEEPALIVE_S:
        message = (
            f"{keep_alive_s} is not above the {NGINX_UPSTREAM_KEEPALIVE_S} s that NGINX keeps a connection to the API"
        )
        yield Finding(API_DOCKERFILE, "CMD", "--timeout-keep-alive", message)


def _api(root: Path, process: Process) -> Iterator[Finding]:
    command = dockerfile_command(root, API_DOCKERFILE)
    if option(command, "--port") != str(process.container["ports"][0]["containerPort"]):
        yield process.finding("ports", f"the image listens on {option(command, '--port')}")
    needed = _pre_stop_s(process.container) + int(option(command, "--timeout-graceful-shutdown"))
    yield from _grace(process, needed, "preStop and uvicorn's --timeout-graceful-shutdown")
    for probe, path in (("startupProbe", "/livez"), ("livenessProbe", "/livez"), ("readinessProbe", "/readyz")):
        if (process.container.get(probe) or {}).get("httpGet", {}).get("path") != path:
            yield process.finding(probe, f"does not ask {path}")


def _worker(_: Path, process: Process) -> Iterator[Finding]:
    soft_s = float(process.environment.get("SOFT_SHUTDOWN_S") or _default("soft_shutdown_s"))
    limit_s = max(spec.hard_limit_s for spec in TASKS.values())
    if soft_s <= limit_s:
        yield process.finding("env.SOFT_SHUTDOWN_S", f"{soft_s:g} s are not above the longest hard limit ({limit_s} s)")
    yield from _grace(process, soft_s + HAND_BACK_S, "SOFT_SHUTDOWN_S and the time to hand tasks back")
    port = str(process.container["ports"][0]["containerPort"])
    if process.environment.get("METRICS_PORT") != port:
        yield process.finding("env.METRICS_PORT", f"must be the container's port {port}")
    memory_mib = float(process.environment.get("WORKER_MAX_MEMORY_MIB") or _default("worker_max_memory_mib"))
    if memory_mib * 2**20 >= quantity(process.container["resources"]["limits"]["memory"]):
        yield process.finding(
            "resources.limits.memory", "is not above WORKER_MAX_MEMORY_MIB: a child is replaced there"
        )
    yield from _probe_files(process)


def _recorder(_: Path, process: Process) -> Iterator[Finding]:
    yield from _grace(process, CLOSE_DEADLINE_S + HAND_BACK_S, "closing its connection and ending")
    yield from _probe_files(process)


def _default(setting: str) -> float:
    return float(WorkerSettings.model_fields[setting].default)


def _probe_files(process: Process) -> Iterator[Finding]:
    """The probes look at the files that the settings name, and those are where the process can write."""
    for probe, setting in PROBES.items():
        file = process.environment.get(setting)
        command = (process.container.get(probe) or {}).get("exec", {}).get("command") or []
        if file is None or file not in re.split(r"[\s()]+", " ".join(command)):
            yield process.finding(probe, f"does not look at {setting}, {file}")
        elif not _is_writable(process, PurePosixPath(file)):
            yield process.finding("volumeMounts", f"no emptyDir is mounted for {setting}, {file}")


def _is_writable(process: Process, file: PurePosixPath) -> bool:
    empty = {volume["name"] for volume in process.pod.spec.get("volumes") or [] if "emptyDir" in volume}
    mounts = [each for each in process.container.get("volumeMounts") or [] if file.is_relative_to(each["mountPath"])]
    nearest = max(mounts, key=lambda each: len(each["mountPath"]), default={"name": None})
    return nearest["name"] in empty and not nearest.get("readOnly")


def _pre_stop_s(container: dict[str, Any]) -> int:
    return int(container.get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0))


def _grace(process: Process, needed_s: float, what: str) -> Iterator[Finding]:
    grace_s = process.pod.spec.get("terminationGracePeriodSeconds", 30)
    if grace_s <= needed_s:
        field = f"{process.pod.path}.terminationGracePeriodSeconds"
        yield process.owner.finding(field, f"{grace_s} is not above the {needed_s:g} s of {what}")
