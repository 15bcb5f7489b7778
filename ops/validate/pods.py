"""The pods that an object describes: of a Deployment, a CronJob or a ScaledJob, or in a chart's values."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ops.validate.tree import Object, walk

GROUPS = ("initContainers", "containers", "ephemeralContainers")


@dataclass(frozen=True)
class Pod:
    """A pod or a pod template; `path` leads to its spec: `spec.template.spec`."""

    owner: Object
    path: str
    labels: dict[str, str]
    spec: dict[str, Any]

    def containers(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """(path, container) of each container, including init containers."""
        for group in GROUPS:
            for container in self.spec.get(group) or []:
                yield f"{self.path}.{group}[{container['name']}]", container


def pods(each: Object) -> Iterator[Pod]:
    """The pods of an object."""
    for path, value in walk(each.body):
        spec = value.get("spec") if isinstance(value, dict) else None
        if isinstance(spec, dict) and isinstance(spec.get("containers"), list):
            labels = (value.get("metadata") or {}).get("labels") or {}
            yield Pod(each, f"{path}.spec".lstrip("."), labels, spec)


def runs_to_completion(pod: Pod) -> bool:
    """Whether a pod is one of a Job, which ends by itself and needs no probes."""
    return pod.spec.get("restartPolicy") in {"Never", "OnFailure"}
