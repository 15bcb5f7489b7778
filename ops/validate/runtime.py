"""Rules for our own pods: ports, probes, time limits and memory agree with images, settings and code."""

import difflib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path, PurePosixPath
from typing import Any

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
from ops.validate.allowed_values import Wanted, must
from ops.validate.pods import Pod, pods
from ops.validate.tree import Finding, Object, Tree, at
from sluice_planner.quantity import parse_quantity

# to hand back what a soft shutdown left, to close the connections and to end
HAND_BACK_S = 10
# NGINX's default for the idle connections that it keeps to a server; its ConfigMap has no key for it
NGINX_UPSTREAM_KEEPALIVE_S = 60
# not READINESS_FILE for the start: a pod that starts in an outage of the broker waits for it, however long that takes
PROBES = {"startupProbe": "LIVENESS_FILE", "livenessProbe": "LIVENESS_FILE", "readinessProbe": "READINESS_FILE"}
PATHS = {"startupProbe": "/livez", "livenessProbe": "/livez", "readinessProbe": "/readyz"}
# a start on a cold node, up to its first attempt to reach a server
START_S = 60
LOOPBACK = {"127.0.0.1", "::1", "localhost"}
SETTINGS: dict[str, type[Settings]] = {
    "api": ApiSettings,
    "celery-worker": WorkerSettings,
    "dead-letter-recorder": RecorderSettings,
}
NATIVE = "the image's own command is PID 1 and gets SIGTERM"
CONTAINERS: dict[str, Wanted] = {
    "api": {"command": ([None], NATIVE), "args": ([None], NATIVE)},
    "celery-worker": {"command": ([None], NATIVE), "args": ([None], NATIVE)},
    "dead-letter-recorder": {"command": ([["python", "-m", "apps.worker.recorder"]], NATIVE), "args": ([None], NATIVE)},
}
DEPLOYMENTS: Wanted = {
    "strategy.type": ([None, "RollingUpdate"], "nothing would run during an update"),
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
        """Name -> value. Values from Secrets are examples; variables with any other `valueFrom` are left out."""
        examples = {key: value for secret in contents(Credentials()).values() for key, value in secret.items()}
        given = {each["name"]: each.get("value") for each in self.container.get("env") or []}
        values = {name: examples.get(name) if value is None else value for name, value in given.items()}
        return {name: value for name, value in values.items() if value is not None}

    @property
    def port(self) -> str:
        """The number of its first port; "none" if it has none."""
        return str((self.container.get("ports") or [{}])[0].get("containerPort", "none"))

    def finding(self, field: str, message: str) -> Finding:
        """A fault of the container."""
        return self.owner.finding(f"{self.path}.{field}", message)


def check(tree: Tree) -> Iterator[Finding]:
    """Check every Deployment, and that each of its containers has an image that is built here."""
    yield from _keep_alive(tree.root)
    for each in tree.objects("Deployment"):
        yield from must(each, "spec", each.spec, DEPLOYMENTS)
        for pod in pods(each):
            for path, container in pod.containers():
                process = Process(each, pod, path, container)
                name = container.get("image", "").rpartition("/")[2].partition(":")[0]
                if name not in IMAGES:
                    yield process.finding("image", f"`make images` builds no {name}")
                if container is pod.spec["containers"][0] and each.name in SETTINGS:
                    yield from _ours(tree.root, process, SETTINGS[each.name])


def _ours(root: Path, process: Process, kind: type[Settings]) -> Iterator[Finding]:
    yield from must(process.owner, process.path, process.container, CONTAINERS[process.owner.name])
    yield from _misspelt(process, kind)
    yield from _home(root, process)
    try:
        settings = load(kind, process.environment)
    except SystemExit as exc:
        yield process.finding("env", str(exc))
        return
    if isinstance(settings, ApiSettings):
        yield from _api(root, process, settings)
    elif isinstance(settings, ConsumerSettings):
        yield from _consumer(process, settings)


def _misspelt(process: Process, kind: type[Settings]) -> Iterator[Finding]:
    """Find names that are nearly those of settings. The variables of a task may have any other name."""
    names = [name.upper() for name in kind.model_fields]
    for name in process.environment:
        near = difflib.get_close_matches(name, names, 1, 0.85)
        if near and name not in names:
            yield process.finding(f"env.{name}", f"is no setting; did you mean {near[0]}?")


def _home(root: Path, process: Process) -> Iterator[Finding]:
    """HOME of the image, where libraries keep caches and settings, is writable."""
    dockerfile = API_DOCKERFILE if process.owner.name == "api" else WORKER_DOCKERFILE
    home = re.search(r"^ENV (?:.* )?HOME=(\S+)", (root / dockerfile).read_text(), re.MULTILINE)
    if home is None or not _is_writable(process, PurePosixPath(home[1])):
        where = home[1] if home else "which the image does not set"
        yield process.finding("volumeMounts", f"no emptyDir is mounted for HOME, {where}")


def option(command: list[str], name: str) -> str:
    """The value of a command's option; "0" if it is not there."""
    return command[command.index(name) + 1] if name in command else "0"


def _keep_alive(root: Path) -> Iterator[Finding]:
    """The API keeps idle connections longer than NGINX, which might otherwise send a request on a closed connection."""
    keep_alive_s = Decimal(option(dockerfile_command(root, API_DOCKERFILE), "--timeout-keep-alive"))
    if keep_alive_s <= NGINX_UPSTREAM_KEEPALIVE_S:
        message = f"{keep_alive_s} is not above the {NGINX_UPSTREAM_KEEPALIVE_S} s that NGINX keeps a connection"
        yield Finding(API_DOCKERFILE, "CMD", "--timeout-keep-alive", message)


def _api(root: Path, process: Process, settings: ApiSettings) -> Iterator[Finding]:
    command = dockerfile_command(root, API_DOCKERFILE)
    if option(command, "--port") != process.port:
        yield process.finding("ports", f"the image listens on {option(command, '--port')}")
    pre_stop_s = int(at(process.container, "lifecycle.preStop.sleep.seconds") or 0)
    if not pre_stop_s:
        yield process.finding("lifecycle.preStop.sleep.seconds", "must be above 0: NGINX must notice the end first")
    needed_s = pre_stop_s + int(option(command, "--timeout-graceful-shutdown"))
    yield from _grace(process, needed_s, "preStop and uvicorn's --timeout-graceful-shutdown")
    for probe, path in PATHS.items():
        if at(process.container, f"{probe}.httpGet.path") != path:
            yield process.finding(probe, f"does not ask {path}")
    file = settings.api_keys_file
    if file is not None and file not in _secret_files(process):
        yield process.finding("env.API_KEYS_FILE", f"no Secret is mounted as {file}")
    if settings.quota_open_tasks > MAX_LENGTH_MESSAGES:
        message = f"is above the {MAX_LENGTH_MESSAGES} that a queue takes: one client could fill it for all"
        yield process.finding("env.QUOTA_OPEN_TASKS", message)


def _secret_files(process: Process) -> set[str]:
    """The paths in the container of the Secret keys that the volumes list as `items`."""
    paths = {
        volume["name"]: [item["path"] for item in at(volume, "secret.items") or []]
        for volume in process.pod.spec.get("volumes") or []
    }
    mounts = process.container.get("volumeMounts") or []
    return {f"{mount['mountPath']}/{path}" for mount in mounts for path in paths.get(mount["name"], [])}


def _consumer(process: Process, settings: ConsumerSettings) -> Iterator[Finding]:
    """Check a worker or the recorder."""
    if isinstance(settings, WorkerSettings):
        yield from _worker(process, settings)
    else:
        yield from _grace(process, CLOSE_DEADLINE_S + HAND_BACK_S, "closing its connection and ending")
    if str(settings.metrics_port) != process.port:
        yield process.finding("env.METRICS_PORT", f"must be the container's port {process.port}")
    if settings.metrics_host in LOOPBACK:
        yield process.finding("env.METRICS_HOST", f"Prometheus cannot ask {settings.metrics_host}")
    yield from _probe_times(process)
    for probe, setting in PROBES.items():
        yield from _probe_file(process, probe, setting, getattr(settings, setting.lower()))


def _worker(process: Process, settings: WorkerSettings) -> Iterator[Finding]:
    soft_s = settings.soft_shutdown_s
    limit_s = max(spec.hard_limit_s for spec in TASKS.values())
    if soft_s <= limit_s:
        yield process.finding("env.SOFT_SHUTDOWN_S", f"{soft_s:g} s are not above the longest hard limit ({limit_s} s)")
    yield from _grace(process, soft_s + HAND_BACK_S, "SOFT_SHUTDOWN_S and the time to hand tasks back")
    memory = parse_quantity(at(process.container, "resources.limits.memory"))
    if memory is not None and settings.worker_max_memory_mib * 2**20 >= memory:
        message = "is not above WORKER_MAX_MEMORY_MIB, at which a child is replaced"
        yield process.finding("resources.limits.memory", message)


def _probe_times(process: Process) -> Iterator[Finding]:
    startup, liveness = (process.container.get(name) or {} for name in ("startupProbe", "livenessProbe"))
    if startup and _duration_s(startup) < START_S:
        message = f"{_duration_s(startup)} s are less than the {START_S} s that a start may take"
        yield process.finding("startupProbe", message)
    if _duration_s(liveness) > OLD_S:
        message = f"takes {_duration_s(liveness)} s to restart what has been dead for {OLD_S} s"
        yield process.finding("livenessProbe", message)


def _duration_s(probe: dict[str, Any]) -> int:
    """How long a probe must fail until kubelet acts."""
    return int(probe.get("periodSeconds", 10) * probe.get("failureThreshold", 3))


def _probe_file(process: Process, probe: str, setting: str, file: str | None) -> Iterator[Finding]:
    """A probe checks the file that a setting names, and the file is in a writable volume."""
    command = " ".join(map(str, at(process.container, f"{probe}.exec.command") or []))
    if setting == "LIVENESS_FILE" and re.findall(r"-lt (\d+)", command) != [str(OLD_S)]:
        yield process.finding(probe, f"must fail for a file that is {OLD_S} s old, by `-lt {OLD_S}`")
    if file is None or file not in re.split(r"[\s()]+", command):
        yield process.finding(probe, f"does not look at {setting}, {file}")
    elif not _is_writable(process, PurePosixPath(file)):
        yield process.finding("volumeMounts", f"no emptyDir is mounted for {setting}, {file}")


def _is_writable(process: Process, file: PurePosixPath) -> bool:
    empty = {volume["name"] for volume in process.pod.spec.get("volumes") or [] if "emptyDir" in volume}
    mounts = [each for each in process.container.get("volumeMounts") or [] if file.is_relative_to(each["mountPath"])]
    nearest = max(mounts, key=lambda each: len(each["mountPath"]), default={"name": None})
    return nearest["name"] in empty and not nearest.get("readOnly")


def _grace(process: Process, needed_s: float, what: str) -> Iterator[Finding]:
    grace_s = process.pod.spec.get("terminationGracePeriodSeconds", 30)
    if grace_s <= needed_s:
        field = f"{process.pod.path}.terminationGracePeriodSeconds"
        yield process.owner.finding(field, f"{grace_s} is not above the {needed_s:g} s of {what}")
