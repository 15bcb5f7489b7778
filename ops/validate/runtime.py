"""Rules for the pods of API, worker and recorder: they agree with the images, the settings and the code."""

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
from ops.validate.allowed_values import AllowedValues, check_values
from ops.validate.pods import Pod, pods
from ops.validate.tree import Finding, Object, Tree, at
from sluice_planner.quantity import parse_quantity

# time to return unfinished tasks to the queue after a soft shutdown, to close the connections and to exit
HAND_BACK_S = 10
# NGINX's default for keepalive_timeout of upstream connections; the controller's ConfigMap has no key for it
NGINX_UPSTREAM_KEEPALIVE_S = 60
# The startup probe does not check READINESS_FILE: a pod that starts during an outage of the broker must not be
# restarted, but wait for the broker.
PROBES = {"startupProbe": "LIVENESS_FILE", "livenessProbe": "LIVENESS_FILE", "readinessProbe": "READINESS_FILE"}
PATHS = {"startupProbe": "/livez", "livenessProbe": "/livez", "readinessProbe": "/readyz"}
# longest start of a process on a cold node, until its first attempt to connect
START_S = 60
LOOPBACK = {"127.0.0.1", "::1", "localhost"}
SETTINGS: dict[str, type[Settings]] = {
    "api": ApiSettings,
    "celery-worker": WorkerSettings,
    "dead-letter-recorder": RecorderSettings,
}
NATIVE = "the command of the image must be PID 1 to receive SIGTERM"
CONTAINERS: dict[str, AllowedValues] = {
    "api": {"command": ([None], NATIVE), "args": ([None], NATIVE)},
    "celery-worker": {"command": ([None], NATIVE), "args": ([None], NATIVE)},
    "dead-letter-recorder": {"command": ([["python", "-m", "apps.worker.recorder"]], NATIVE), "args": ([None], NATIVE)},
}
DEPLOYMENTS: AllowedValues = {
    "strategy.type": ([None, "RollingUpdate"], "no pod would run during an update"),
}


@dataclass(frozen=True)
class Process:
    """A container that runs the API, a worker or the recorder."""

    owner: Object
    pod: Pod
    path: str
    container: dict[str, Any]

    @property
    def environment(self) -> dict[str, str]:
        """Name -> value. Values from Secrets are examples. Variables with any other `valueFrom` are omitted."""
        examples = {key: value for secret in contents(Credentials()).values() for key, value in secret.items()}
        given = {each["name"]: each.get("value") for each in self.container.get("env") or []}
        values = {name: examples.get(name) if value is None else value for name, value in given.items()}
        return {name: value for name, value in values.items() if value is not None}

    @property
    def port(self) -> str:
        """The number of the container's first port; "none" if the container has no ports."""
        return str((self.container.get("ports") or [{}])[0].get("containerPort", "none"))

    def finding(self, field: str, message: str) -> Finding:
        """A fault of the container. `field` is relative to the container."""
        return self.owner.finding(f"{self.path}.{field}", message)


def check(tree: Tree) -> Iterator[Finding]:
    """Check every Deployment. `make images` must build the image of each container."""
    yield from _keep_alive(tree.root)
    for each in tree.objects("Deployment"):
        yield from check_values(each, "spec", each.spec, DEPLOYMENTS)
        for pod in pods(each):
            for path, container in pod.containers():
                process = Process(each, pod, path, container)
                name = container.get("image", "").rpartition("/")[2].partition(":")[0]
                if name not in IMAGES:
                    yield process.finding("image", f"`make images` does not build {name}")
                if container is pod.spec["containers"][0] and each.name in SETTINGS:
                    yield from _check_process(tree.root, process, SETTINGS[each.name])


def _check_process(root: Path, process: Process, kind: type[Settings]) -> Iterator[Finding]:
    yield from check_values(process.owner, process.path, process.container, CONTAINERS[process.owner.name])
    yield from _misspelt_settings(process, kind)
    yield from _home_folder(root, process)
    try:
        settings = load(kind, process.environment)
    except SystemExit as exc:
        yield process.finding("env", str(exc))
        return
    if isinstance(settings, ApiSettings):
        yield from _api(root, process, settings)
    elif isinstance(settings, ConsumerSettings):
        yield from _consumer(process, settings)


def _misspelt_settings(process: Process, kind: type[Settings]) -> Iterator[Finding]:
    """Find names that are similar to settings. All other names are allowed, for variables of tasks."""
    names = [name.upper() for name in kind.model_fields]
    for name in process.environment:
        near = difflib.get_close_matches(name, names, 1, 0.85)
        if near and name not in names:
            yield process.finding(f"env.{name}", f"is not a setting; did you mean {near[0]}?")


def _home_folder(root: Path, process: Process) -> Iterator[Finding]:
    """HOME of the image is writable: libraries store caches and settings there."""
    dockerfile = API_DOCKERFILE if process.owner.name == "api" else WORKER_DOCKERFILE
    home = re.search(r"^ENV (?:.* )?HOME=(\S+)", (root / dockerfile).read_text(), re.MULTILINE)
    if home is None or not _is_writable(process, PurePosixPath(home[1])):
        where = home[1] if home else "which the image does not set"
        yield process.finding("volumeMounts", f"no emptyDir is mounted for HOME, {where}")


def option(command: list[str], name: str) -> str:
    """The value of an option in a command; "0" if the command does not have the option."""
    return command[command.index(name) + 1] if name in command else "0"


def _keep_alive(root: Path) -> Iterator[Finding]:
    """The API keeps idle connections longer than NGINX: otherwise NGINX may send a request on a closed connection."""
    keep_alive_s = Decimal(option(dockerfile_command(root, API_DOCKERFILE), "--timeout-keep-alive"))
    if keep_alive_s <= NGINX_UPSTREAM_KEEPALIVE_S:
        message = f"{keep_alive_s} is not above the {NGINX_UPSTREAM_KEEPALIVE_S} s that NGINX keeps idle connections"
        yield Finding(API_DOCKERFILE, "CMD", "--timeout-keep-alive", message)


def _api(root: Path, process: Process, settings: ApiSettings) -> Iterator[Finding]:
    command = dockerfile_command(root, API_DOCKERFILE)
    if option(command, "--port") != process.port:
        yield process.finding("ports", f"the image listens on {option(command, '--port')}")
    pre_stop_s = int(at(process.container, "lifecycle.preStop.sleep.seconds") or 0)
    if not pre_stop_s:
        yield process.finding(
            "lifecycle.preStop.sleep.seconds", "must be above 0: NGINX must stop sending requests first"
        )
    needed_s = pre_stop_s + int(option(command, "--timeout-graceful-shutdown"))
    yield from _grace(process, needed_s, "preStop and uvicorn's --timeout-graceful-shutdown")
    for probe, path in PATHS.items():
        if at(process.container, f"{probe}.httpGet.path") != path:
            yield process.finding(probe, f"must request {path}")
    file = settings.api_keys_file
    if file is not None and file not in _secret_files(process):
        yield process.finding("env.API_KEYS_FILE", f"no Secret is mounted as {file}")
    if settings.quota_open_tasks > MAX_LENGTH_MESSAGES:
        message = f"is above {MAX_LENGTH_MESSAGES}, the length limit of a queue: one client could fill the queue"
        yield process.finding("env.QUOTA_OPEN_TASKS", message)


def _secret_files(process: Process) -> set[str]:
    """The paths in the container of the Secret keys that volumes list under `items`."""
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
        yield from _grace(process, CLOSE_DEADLINE_S + HAND_BACK_S, "closing the connection and exiting")
    if str(settings.metrics_port) != process.port:
        yield process.finding("env.METRICS_PORT", f"must be the container's port {process.port}")
    if settings.metrics_host in LOOPBACK:
        yield process.finding("env.METRICS_HOST", f"Prometheus cannot reach {settings.metrics_host}")
    yield from _probe_times(process)
    for probe, setting in PROBES.items():
        yield from _probe_file(process, probe, setting, getattr(settings, setting.lower()))


def _worker(process: Process, settings: WorkerSettings) -> Iterator[Finding]:
    soft_s = settings.soft_shutdown_s
    limit_s = max(spec.hard_limit_s for spec in TASKS.values())
    if soft_s <= limit_s:
        yield process.finding("env.SOFT_SHUTDOWN_S", f"{soft_s:g} s are not above the longest hard limit ({limit_s} s)")
    yield from _grace(process, soft_s + HAND_BACK_S, "SOFT_SHUTDOWN_S plus the time to return tasks to the queue")
    memory = parse_quantity(at(process.container, "resources.limits.memory"))
    if memory is not None and settings.worker_max_memory_mib * 2**20 >= memory:
        message = "is not above WORKER_MAX_MEMORY_MIB, at which a child process is replaced"
        yield process.finding("resources.limits.memory", message)


def _probe_times(process: Process) -> Iterator[Finding]:
    startup, liveness = (process.container.get(name) or {} for name in ("startupProbe", "livenessProbe"))
    if startup and _duration_s(startup) < START_S:
        message = f"{_duration_s(startup)} s are less than the {START_S} s that a start may take"
        yield process.finding("startupProbe", message)
    if _duration_s(liveness) > OLD_S:
        message = f"takes {_duration_s(liveness)} s, but must restart a dead process within {OLD_S} s"
        yield process.finding("livenessProbe", message)


def _duration_s(probe: dict[str, Any]) -> int:
    """How long a probe must fail until kubelet reacts."""
    return int(probe.get("periodSeconds", 10) * probe.get("failureThreshold", 3))


def _probe_file(process: Process, probe: str, setting: str, file: str | None) -> Iterator[Finding]:
    """A probe checks the file that a setting names, and the file is in a writable volume."""
    command = " ".join(map(str, at(process.container, f"{probe}.exec.command") or []))
    if setting == "LIVENESS_FILE" and re.findall(r"-lt (\d+)", command) != [str(OLD_S)]:
        yield process.finding(probe, f"must fail if the file is {OLD_S} s old: use `-lt {OLD_S}`")
    if file is None or file not in re.split(r"[\s()]+", command):
        yield process.finding(probe, f"does not check {setting}, {file}")
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
