"""Rules for our own pods: what images, settings and code say of ports, probes, time limits and memory."""

import difflib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path, PurePosixPath
from typing import Any, cast

from apps.contract.settings import (
    ApiSettings,
    ConsumerSettings,
    RecorderSettings,
    Settings,
    WorkerSettings,
    load,
)
from apps.contract.topology import MAX_LENGTH_MESSAGES
from apps.health import OLD_S
from apps.tasks import TASKS
from apps.worker.recorder import CLOSE_DEADLINE_S
from ops.credentials import Credentials
from ops.images import API_DOCKERFILE, IMAGES, WORKER_DOCKERFILE, dockerfile_command
from ops.secrets import contents
from ops.validate.pods import Pod, pods
from ops.validate.tree import Finding, Object, Tree, at
from ops.validate.wanted import Wanted, must
from sluice_planner.quantity import parse_quantity

# to hand back what a soft shutdown left, to close the connections and to end
HAND_BACK_S = 10
# NGINX's default for the idle connections that it keeps to a server; its ConfigMap has no key for it
NGINX_UPSTREAM_KEEPALIVE_S = 60
# not READINESS_FILE for the start: a pod that starts in an outage of the broker waits for it, however long that takes
PROBES = {"startupProbe": "LIVENESS_FILE", "livenessProbe": "LIVENESS_FILE", "readinessProbe": "READINESS_FILE"}
# a start on a cold node, up to its first attempt to reach a server
START_S = 60
LOOPBACK = {"127.0.0.1", "::1", "localhost"}
NATIVE = "the image's own command is PID 1 and gets SIGTERM"
# what each of our containers is started with, and how its pods are replaced
CONTAINERS: dict[str, Wanted] = {
    "api": {"command": ([None], NATIVE), "args": ([None], NATIVE)},
    "celery-worker": {"command": ([None], NATIVE), "args": ([None], NATIVE)},
    "dead-letter-recorder": {"command": ([["python", "-m", "apps.worker.recorder"]], NATIVE), "args": ([None], NATIVE)},
}
DEPLOYMENTS: Wanted = {
    "strategy.type": ([None, "RollingUpdate"], "during an update nothing would run"),
}


@dataclass(frozen=True)
class Process:
    """A container of one of our pods."""

    owner: Object
    pod: Pod
    path: str
    container: dict[str, Any]

    @property
    def environment(self) -> dict[str, str]:
        """Name -> value; what comes from a Secret is made up, and what comes from elsewhere is not known."""
        made_up = {key: value for secret in contents(Credentials()).values() for key, value in secret.items()}
        there = {each["name"]: each.get("value") for each in self.container.get("env") or []}
        values = {name: made_up.get(name) if value is None else value for name, value in there.items()}
        return {name: value for name, value in values.items() if value is not None}

    @property
    def port(self) -> str:
        """Its first one; "none" if it has none."""
        return str((self.container.get("ports") or [{}])[0].get("containerPort", "none"))

    def finding(self, field: str, message: str) -> Finding:
        """Something wrong with the container."""
        return self.owner.finding(f"{self.path}.{field}", message)


def check(tree: Tree) -> Iterator[Finding]:
    """Every one of our Deployments; and that it has an image that is built here."""
    yield from _keep_alive(tree.root)
    for each in tree.objects("Deployment"):
        yield from must(each, "spec", each.spec, DEPLOYMENTS)
        for process in _processes(each):
            name = process.container.get("image", "").rpartition("/")[2].partition(":")[0]
            if name not in IMAGES:
                yield process.finding("image", f"`make images` builds no {name}")
            if process.container is process.pod.spec["containers"][0]:
                yield from _ours(tree.root, process)


def _ours(root: Path, process: Process) -> Iterator[Finding]:
    kinds: dict[str, type[Settings]] = {
        "api": ApiSettings,
        "celery-worker": WorkerSettings,
        "dead-letter-recorder": RecorderSettings,
    }
    kind = kinds.get(process.owner.name)
    if kind is None:
        return
    yield from must(process.owner, process.path, process.container, CONTAINERS[process.owner.name])
    yield from _misspelt(process, kind)
    yield from _home(root, process)
    try:
        settings = load(kind, process.environment)
    except SystemExit as exc:
        yield process.finding("env", str(exc))
        return
    if isinstance(settings, WorkerSettings):
        yield from _worker(process, settings)
    elif isinstance(settings, RecorderSettings):
        yield from _recorder(process, settings)
    else:
        yield from _api(root, process, cast("ApiSettings", settings))


def _misspelt(process: Process, kind: type[Settings]) -> Iterator[Finding]:
    """A name that is nearly a setting's; a task's own variables may have any other."""
    names = [name.upper() for name in kind.model_fields]
    for name in process.environment:
        near = difflib.get_close_matches(name, names, 1, 0.85)
        if near and name not in names:
            yield process.finding(f"env.{name}", f"is no setting; did you mean {near[0]}?")


def _home(root: Path, process: Process) -> Iterator[Finding]:
    """The image's HOME is where libraries keep caches and settings."""
    dockerfile = API_DOCKERFILE if process.owner.name == "api" else WORKER_DOCKERFILE
    home = re.search(r"^ENV (?:.* )?HOME=(\S+)", (root / dockerfile).read_text(), re.MULTILINE)
    if home is None or not _is_writable(process, PurePosixPath(home[1])):
        where = home[1] if home else "which the image does not set"
        yield process.finding("volumeMounts", f"no emptyDir is mounted for HOME, {where}")


def _processes(each: Object) -> Iterator[Process]:
    for pod in pods(each):
        for path, container in pod.containers():
            yield Process(each, pod, path, container)


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


def _quotas(process: Process, settings: ApiSettings) -> Iterator[Finding]:
    """The keys are where they are looked for, and no client can fill a queue alone."""
    file = settings.api_keys_file
    if file is not None and file not in _secret_files(process):
        yield process.finding("env.API_KEYS_FILE", f"no Secret is mounted as {file}")
    if settings.quota_open_tasks > MAX_LENGTH_MESSAGES:
        message = f"is above the {MAX_LENGTH_MESSAGES} that a queue takes: one client could fill it for all"
        yield process.finding("env.QUOTA_OPEN_TASKS", message)


def _secret_files(process: Process) -> set[str]:
    """The files that Secrets are mounted as, where the manifests name each."""
    paths = {
        volume["name"]: [item["path"] for item in at(volume, "secret.items") or []]
        for volume in process.pod.spec.get("volumes") or []
    }
    mounts = process.container.get("volumeMounts") or []
    return {f"{mount['mountPath']}/{path}" for mount in mounts for path in paths.get(mount["name"], [])}


def _api(root: Path, process: Process, settings: ApiSettings) -> Iterator[Finding]:
    command = dockerfile_command(root, API_DOCKERFILE)
    if option(command, "--port") != process.port:
        yield process.finding("ports", f"the image listens on {option(command, '--port')}")
    if not _pre_stop_s(process.container):
        yield process.finding("lifecycle.preStop.sleep.seconds", "must be above 0: NGINX hears of the end first")
    needed = _pre_stop_s(process.container) + int(option(command, "--timeout-graceful-shutdown"))
    yield from _grace(process, needed, "preStop and uvicorn's --timeout-graceful-shutdown")
    yield from _quotas(process, settings)
    for probe, path in (("startupProbe", "/livez"), ("livenessProbe", "/livez"), ("readinessProbe", "/readyz")):
        if (process.container.get(probe) or {}).get("httpGet", {}).get("path") != path:
            yield process.finding(probe, f"does not ask {path}")


def _worker(process: Process, settings: WorkerSettings) -> Iterator[Finding]:
    soft_s = settings.soft_shutdown_s
    limit_s = max(spec.hard_limit_s for spec in TASKS.values())
    if soft_s <= limit_s:
        yield process.finding("env.SOFT_SHUTDOWN_S", f"{soft_s:g} s are not above the longest hard limit ({limit_s} s)")
    yield from _grace(process, soft_s + HAND_BACK_S, "SOFT_SHUTDOWN_S and the time to hand tasks back")
    yield from _metrics(process, settings)
    memory = parse_quantity(process.container.get("resources", {}).get("limits", {}).get("memory"))
    if memory is not None and settings.worker_max_memory_mib * 2**20 >= memory:
        yield process.finding(
            "resources.limits.memory", "is not above WORKER_MAX_MEMORY_MIB: a child is replaced there"
        )
    yield from _probe_files(process, settings)


def _recorder(process: Process, settings: RecorderSettings) -> Iterator[Finding]:
    yield from _grace(process, CLOSE_DEADLINE_S + HAND_BACK_S, "closing its connection and ending")
    yield from _metrics(process, settings)
    yield from _probe_files(process, settings)


def _metrics(process: Process, settings: ConsumerSettings) -> Iterator[Finding]:
    if str(settings.metrics_port) != process.port:
        yield process.finding("env.METRICS_PORT", f"must be the container's port {process.port}")
    if settings.metrics_host in LOOPBACK:
        yield process.finding("env.METRICS_HOST", f"Prometheus cannot ask {settings.metrics_host}")


def _probe_files(process: Process, settings: ConsumerSettings) -> Iterator[Finding]:
    """The probes look at the files that the settings name, and those are where the process can write."""
    startup = process.container.get("startupProbe") or {}
    startup_s = startup.get("periodSeconds", 10) * startup.get("failureThreshold", 3)
    if startup and startup_s < START_S:
        yield process.finding("startupProbe", f"{startup_s} s are less than the {START_S} s that a start may take")
    liveness = process.container.get("livenessProbe") or {}
    restart_s = liveness.get("periodSeconds", 10) * liveness.get("failureThreshold", 3)
    if restart_s > OLD_S:
        yield process.finding("livenessProbe", f"takes {restart_s} s to restart what has been dead for {OLD_S} s")
    for probe, setting in PROBES.items():
        words = " ".join(map(str, at(process.container, f"{probe}.exec.command") or []))
        if setting == "LIVENESS_FILE" and re.findall(r"-lt (\d+)", words) != [str(OLD_S)]:
            yield process.finding(probe, f"must fail for a file that is {OLD_S} s old, by `-lt {OLD_S}`")
        file = getattr(settings, setting.lower())
        command = (process.container.get(probe) or {}).get("exec", {}).get("command") or []
        if file is None or file not in re.split(r"[\s()]+", " ".join(map(str, command))):
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
