"""The JSON6902 patch that applies a candidate to a ScaledObject, for Kustomize."""

from collections.abc import Sequence
from typing import Any

import yaml

from sluice_planner.hpa_controller import Behavior, Rules
from sluice_planner.kubernetes_objects import Object
from sluice_planner.sizing import BEHAVIORS, Candidate


def operations(scaled: Object, candidate: Candidate, queues: Sequence[str]) -> list[dict[str, Any]]:
    """The operations, all of them `add`, which also replaces existing values."""
    spec = scaled.body["spec"]
    changes: list[tuple[str, Any]] = [
        ("/spec/minReplicaCount", candidate.minimum),
        ("/spec/maxReplicaCount", candidate.maximum),
    ]
    for number, trigger in enumerate(spec["triggers"]):
        metadata = trigger.get("metadata") or {}
        if trigger["type"] == "rabbitmq" and metadata.get("queueName") in queues:
            path = f"/spec/triggers/{number}/metadata"
            name = "queueLength" if "queueLength" in metadata else "value"
            changes.append((f"{path}/{name}", f"{candidate.value:g}"))
            if name == "value" and "mode" not in metadata:
                changes.append((f"{path}/mode", "QueueLength"))
    if candidate.behavior is not None:
        changes.append(_behavior(spec, BEHAVIORS[candidate.behavior]))
    return [{"op": "add", "path": path, "value": value} for path, value in changes]


def as_yaml(made: Sequence[dict[str, Any]], scaled: Object) -> str:
    """The patch as a file, with a comment that says how to use it."""
    target = f"{{kind: ScaledObject, name: {scaled.name}}}"
    head = f"# in kustomization.yaml: patches: [{{path: this-file.yaml, target: {target}}}]\n"
    return head + yaml.safe_dump(list(made), sort_keys=False)


def _behavior(spec: dict[str, Any], behavior: Behavior) -> tuple[str, Any]:
    """Set the behavior at the deepest path whose parent exists."""
    value: Any = {"scaleUp": _rules(behavior.up), "scaleDown": _rules(behavior.down)}
    advanced = spec.get("advanced")
    if not advanced:
        return "/spec/advanced", {"horizontalPodAutoscalerConfig": {"behavior": value}}
    if not advanced.get("horizontalPodAutoscalerConfig"):
        return "/spec/advanced/horizontalPodAutoscalerConfig", {"behavior": value}
    return "/spec/advanced/horizontalPodAutoscalerConfig/behavior", value


def _rules(rules: Rules) -> dict[str, Any]:
    policies = [{"type": each.kind, "value": each.value, "periodSeconds": each.period_s} for each in rules.policies]
    return {"stabilizationWindowSeconds": rules.window_s, "selectPolicy": rules.select, "policies": policies}
