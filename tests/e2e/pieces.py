"""The pieces of pods among a chart's values, put into pods: an API server would say the same of the release's own."""

from collections.abc import Iterator
from typing import Any

from ops.validate.tree import Object, walk, without_nulls

# a chart's value -> (where it ends in a pod, its type; another one means something else to the chart)
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
# Pod Security restricts no pod there: only the pieces are looked at
NAMESPACE = "default"


def pods_of_values(each: Object) -> Iterator[tuple[dict[str, Any], dict[str, str]]]:
    """(a pod, its field -> the release's own field) for each map of a HelmRelease's values that has such pieces."""
    for path, value in walk(each.spec.get("values", {}), "spec.values"):
        if isinstance(value, dict):
            pieces = {
                PLACES[name][0]: f"{path}.{name}"
                for name, piece in value.items()
                if name in PLACES and isinstance(piece, PLACES[name][1])
            }
            if pieces:
                yield _pod({place: value[name.rpartition(".")[2]] for place, name in pieces.items()}), pieces
            if {"requests", "limits"} & value.keys():
                yield _pod({RESOURCES: value}), {RESOURCES: path}


def _pod(pieces: dict[str, Any]) -> dict[str, Any]:
    container: dict[str, Any] = {"name": "main", "image": "image"}
    spec: dict[str, Any] = {"containers": [container]}
    for place, piece in pieces.items():
        *_, group, field = place.split(".")
        (container if group == "0" else spec)[field] = without_nulls(piece)  # as Helm takes them away
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": NAMESPACE}, "spec": spec}
