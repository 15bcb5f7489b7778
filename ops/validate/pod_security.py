"""The Pod Security standard `restricted`, and a little more: a cluster would admit no pod that breaks it.

Source: Kubernetes, "Pod Security Standards", as of 1.36. Beyond it a root file system must be read-only, and the
seccomp profile the runtime's own.
"""

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from ops.validate.pods import Pod
from ops.validate.tree import Finding, at, walk

VOLUMES = {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "image", "persistentVolumeClaim"} | {
    "projected",
    "secret",
}
SYSCTLS = {
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.ping_group_range",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.tcp_wmem",
}
# None: not set
POD = {"hostNetwork": (None, False), "hostPID": (None, False), "hostIPC": (None, False)}
CONTEXT: Mapping[str, Collection[Any]] = {
    "runAsNonRoot": (True,),
    "seccompProfile.type": ("RuntimeDefault",),
    "seLinuxOptions.type": (None, "", "container_t", "container_init_t", "container_kvm_t", "container_engine_t"),
    "seLinuxOptions.user": (None, ""),
    "seLinuxOptions.role": (None, ""),
    "appArmorProfile.type": (None, "RuntimeDefault", "Localhost"),
    "windowsOptions.hostProcess": (None, False),
}
CONTAINER: Mapping[str, Collection[Any]] = {
    "allowPrivilegeEscalation": (False,),
    "readOnlyRootFilesystem": (True,),
    "privileged": (None, False),
    "procMount": (None, "Default"),
    "capabilities.drop": (["ALL"],),
    "capabilities.add": (None, []),
}


def check(pod: Pod) -> Iterator[Finding]:
    """What is wrong with a pod and each of its containers."""
    each, shared = pod.owner, pod.spec.get("securityContext") or {}
    yield from _allowed(pod, pod.path, pod.spec, POD)
    for number, volume in enumerate(pod.spec.get("volumes") or []):
        for kind in sorted(volume.keys() - VOLUMES - {"name"}):
            yield each.finding(f"{pod.path}.volumes.{number}.{kind}", "is no kind of volume that restricted pods have")
    for number, sysctl in enumerate(shared.get("sysctls") or []):
        if sysctl["name"] not in SYSCTLS:
            yield each.finding(f"{pod.path}.securityContext.sysctls.{number}", f"{sysctl['name']} is not a safe one")
    for where, container in pod.containers():
        own = container.get("securityContext") or {}
        yield from _allowed(pod, f"{where}.securityContext", own, CONTAINER)
        yield from _context(pod, where, shared, own)
        yield from _host(pod, where, container)


def _allowed(pod: Pod, where: str, there: dict[str, Any], rules: Mapping[str, Collection[Any]]) -> Iterator[Finding]:
    for field, values in rules.items():
        if at(there, field) not in values:
            yield pod.owner.finding(f"{where}.{field}", _must(values, at(there, field)))


def _context(pod: Pod, where: str, shared: dict[str, Any], own: dict[str, Any]) -> Iterator[Finding]:
    """What holds for a container: its own context where that says something, else the pod's."""
    for field, values in CONTEXT.items():
        says, value = _effective(pod, where, field, shared, own)
        if value not in values:
            yield pod.owner.finding(f"{says}.{field}", _must(values, value))
    says, user = _effective(pod, where, "runAsUser", shared, own)
    if not (isinstance(user, int) and user > 0):
        yield pod.owner.finding(f"{says}.runAsUser", "must be a number above 0: the image's user")


def _effective(pod: Pod, where: str, field: str, shared: dict[str, Any], own: dict[str, Any]) -> tuple[str, Any]:
    overridden = at(own, field) is not None
    holder = where if overridden else pod.path
    return f"{holder}.securityContext", at(own if overridden else shared, field)


def _host(pod: Pod, where: str, container: dict[str, Any]) -> Iterator[Finding]:
    """Ports of the host, and probes or hooks that are sent to another one."""
    for path, value in walk(container, where):
        name = path.rpartition(".")[2]
        if name in {"hostPort", "host"} and value and not isinstance(value, dict):
            yield pod.owner.finding(path, "is not for pods (Pod Security: restricted)")


def _must(values: Collection[Any], value: object) -> str:
    wanted = " or ".join("unset" if each is None else str(each) for each in values if each not in ("", []))
    return f"must be {wanted}, not {value} (Pod Security: restricted)"
