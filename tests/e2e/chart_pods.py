"""Build pods from the pod fields in a chart's values, so that an API server can check them."""

from collections.abc import Iterator
from typing import Any

from ops.validate.tree import Object, walk, without_nulls

# name of a chart's value -> (its place in a pod, its type; a value of another type is not a pod field)
PLACES: dict[str, tuple[str, type]] = {
    "affinity": ("spec.affinity", dict),
    "containerSecurityContext": ("spec.containers.0.securityContext", dict),
    "lifecycle": ("spec.containers.0.lifecycle", dict),
    "nodeSelector": ("spec.nodeSelector", dict),
    "podSecurityContext": ("spec.securityContext", dict),
    "terminationGracePeriodSeconds": ("spec.terminationGracePeriodSeconds", int),
    "tolerations": ("spec.tolerations", list),
    "topologySpreadConstraints": ("spec.topologySpreadConstraints", list),
}
RESOURCES = "spec.containers.0.resources"
# Pod Security does not restrict this namespace, so only faults of the values are found
NAMESPACE = "default"


def objects_of_values(each: Object) -> Iterator[tuple[dict[str, Any], dict[str, str]]]:
    """Yield (a pod, its fields -> fields of the release) for each map of values with pod fields."""
    for path, value in walk(each.spec.get("values", {}), "spec.values"):
        if isinstance(value, dict):
            parts = {
                PLACES[name][0]: f"{path}.{name}"
                for name, part in value.items()
                if name in PLACES and isinstance(part, PLACES[name][1])
            }
            if parts:
                yield _pod({place: value[name.rpartition(".")[2]] for place, name in parts.items()}), parts
            if {"requests", "limits"} & value.keys():
                yield _pod({RESOURCES: value}), {RESOURCES: path}


def _pod(parts: dict[str, Any]) -> dict[str, Any]:
    container: dict[str, Any] = {"name": "main", "image": "image"}
    spec: dict[str, Any] = {"containers": [container]}
    for place, part in parts.items():
        *_, group, field = place.split(".")
        (container if group == "0" else spec)[field] = without_nulls(part)  # Helm removes nulls, too
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": NAMESPACE}, "spec": spec}
