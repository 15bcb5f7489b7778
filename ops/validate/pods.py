"""Finds the pod templates in an object, such as a Deployment, a CronJob, a ScaledJob or the values of a chart."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ops.validate.tree import Object, walk

GROUPS = ("initContainers", "containers", "ephemeralContainers")


@dataclass(frozen=True)
class Pod:
    """A pod or a pod template. `path` is the path of its spec, such as `spec.template.spec`."""

    owner: Object
    path: str
    labels: dict[str, str]
    spec: dict[str, Any]

    def containers(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """(path, container) of each container, including init and ephemeral containers."""
        for group in GROUPS:
            for container in self.spec.get(group) or []:
                yield f"{self.path}.{group}[{container['name']}]", container


def pods(each: Object) -> Iterator[Pod]:
    """All pods and pod templates in an object."""
    for path, value in walk(each.body):
        spec = value.get("spec") if isinstance(value, dict) else None
        if isinstance(spec, dict) and isinstance(spec.get("containers"), list):
            labels = (value.get("metadata") or {}).get("labels") or {}
            yield Pod(each, f"{path}.spec".lstrip("."), labels, spec)


def runs_to_completion(pod: Pod) -> bool:
    """Whether this is a pod of a Job, which terminates by itself and needs no probes."""
    return pod.spec.get("restartPolicy") in {"Never", "OnFailure"}
