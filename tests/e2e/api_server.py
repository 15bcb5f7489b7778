"""Find the rendered objects that the cluster's API server refuses or warns about, by server-side dry runs.

It also sends objects that other programs create from the rendered ones: the pods of a Deployment or CronJob, which Pod
Security and the admission of service accounts and priority classes check; the HorizontalPodAutoscaler of a
ScaledObject; and pods with the values of a chart. A fault of such an object is reported for the object in
the manifests.
"""

import json
import re
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any, Self

import httpx

from ops.forward import api_server
from ops.validate.pods import pods
from ops.validate.tree import Finding, Object, Tree, once
from tests.e2e import chart_pods

TIMEOUT_S = 60
# the form of a Warning header
WARNING = re.compile(r'299 - "((?:[^"\\]|\\.)*)"')
FIELD = re.compile(r"(?P<field>spec\.[^\s:]+): (?P<message>.*)")
UNKNOWN = re.compile(r"strict decoding error: (?P<message>unknown field \"(?P<field>[^\"]+)\")")
MAX_REPLICAS = 100  # KEDA's default
# field of the HorizontalPodAutoscaler -> field of the ScaledObject that sets it
AUTOSCALER_FIELDS = {
    "spec.behavior": "spec.advanced.horizontalPodAutoscalerConfig.behavior",
    "spec.minReplicas": "spec.minReplicaCount",
    "spec.maxReplicas": "spec.maxReplicaCount",
}


@dataclass(frozen=True)
class Sent:
    """The manifest object that a sent object comes from. `fields`: fields of the sent object -> fields of the owner."""

    owner: Object
    fields: dict[str, str]

    def finding(self, field: str, message: str) -> Finding:
        """Return a finding about the owner for a fault of the sent object."""
        # in warnings, and for unknown fields, only the text names the field
        named = None if field else FIELD.match(message) or UNKNOWN.search(message)
        if named:
            field, message = named["field"], named["message"]
        path = re.sub(r"\[(\d+)\]", r".\1", field)  # `ports[0].name` as `ports.0.name`
        for theirs, ours in self.fields.items():
            path = re.sub(rf"^{theirs}\b", ours, path)
        # leave out the value of a whole object, which may be long
        return self.owner.finding(path or "object", re.sub(r"\{\".*\}", "{...}", message))


class ApiServer:
    """The API server of the cluster that KUBECONFIG names."""

    def __init__(self, http: httpx.Client) -> None:
        self._http = http
        self._kinds = cache(self._list_kinds)
        self._accepted: set[str] = set()

    @classmethod
    @contextmanager
    def reached(cls) -> Iterator[Self]:
        """Connect through `kubectl proxy`."""
        with api_server() as port, httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=TIMEOUT_S) as http:
            yield cls(http)

    def findings(self, tree: Tree) -> list[Finding]:
        """Return faults and warnings of the objects of a tree. An object that was accepted before is not sent again."""
        sent: dict[str, list[Sent]] = defaultdict(list)
        for text, same in once(tree).items():
            sent[text] += [Sent(each, {}) for each in same]
        for each in tree.objects():
            for body, fields in _made_of(each):
                sent[json.dumps(body, sort_keys=True)].append(Sent(each, fields))
        found = []
        for text, owners in sent.items():
            if text not in self._accepted:
                faults = list(self._dry_run(json.loads(text)))
                found += [each.finding(*fault) for each in owners for fault in faults]
                if not faults:
                    self._accepted.add(text)
        return found

    def _dry_run(self, body: dict[str, Any]) -> Iterator[tuple[str, str]]:
        """Yield (field, message) for each fault and warning; the field is empty if the server names none."""
        options = {"dryRun": "All", "fieldValidation": "Strict"}
        answer = self._http.post(self._place(body), params=options, json=body)
        status = answer.json()
        # an object that exists already has passed admission and validation
        if answer.is_error and status.get("reason") != "AlreadyExists":
            causes = (status.get("details") or {}).get("causes") or [status]
            yield from ((cause.get("field", ""), cause["message"]) for cause in causes)
        for header in answer.headers.get_list("Warning"):
            yield from (("", text.replace('\\"', '"')) for text in WARNING.findall(header))

    def _place(self, body: dict[str, Any]) -> str:
        version = body["apiVersion"]
        root = f"/apis/{version}" if "/" in version else f"/api/{version}"
        plural, namespaced = self._kinds(root)[body["kind"]]
        namespace = f"/namespaces/{body['metadata']['namespace']}" if namespaced else ""
        return f"{root}{namespace}/{plural}"

    def _list_kinds(self, root: str) -> dict[str, tuple[str, bool]]:
        listed = self._http.get(root).raise_for_status().json()["resources"]
        return {each["kind"]: (each["name"], each["namespaced"]) for each in listed if "/" not in each["name"]}


def _made_of(each: Object) -> Iterator[tuple[dict[str, Any], dict[str, str]]]:
    """Yield (an object that another program creates from this one, its fields -> fields of this one)."""
    if each.kind != "Pod":
        for pod in pods(each):
            metadata = {"name": "dry-run", "namespace": each.namespace, "labels": pod.labels}
            yield {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": pod.spec}, {"spec": pod.path}
    if each.kind == "ScaledObject":
        yield _autoscaler(each), AUTOSCALER_FIELDS
    if each.kind == "HelmRelease":
        yield from chart_pods.objects_of_values(each)


def _autoscaler(each: Object) -> dict[str, Any]:
    """Return the HorizontalPodAutoscaler that KEDA creates from a ScaledObject, with the fields that it sets."""
    config = (each.spec.get("advanced") or {}).get("horizontalPodAutoscalerConfig") or {}
    metric = {"metric": {"name": "s0"}, "target": {"type": "AverageValue", "averageValue": "1"}}
    return {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": config.get("name", f"keda-hpa-{each.name}"), "namespace": each.namespace},
        "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment"} | each.spec["scaleTargetRef"],
            "minReplicas": each.spec.get("minReplicaCount") or 1,
            "maxReplicas": each.spec.get("maxReplicaCount", MAX_REPLICAS),
            "behavior": config.get("behavior"),
            "metrics": [{"type": "External", "external": metric}],
        },
    }
