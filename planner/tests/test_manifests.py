"""Workloads are read from overlays, and invalid overlays are refused with one sentence."""

import io
import re
from pathlib import Path
from typing import Any

import pytest

from sluice_planner import kubernetes_objects, manifests
from sluice_planner.fields import Wrong
from tests.overlays import OVERLAY, objects, workload

SCALER = r"overlay\.yaml: ScaledObject work/scaler: spec"


def test_a_file_and_standard_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "overlay.yaml").write_text(OVERLAY)
    monkeypatch.setattr("sys.stdin", io.StringIO(OVERLAY))
    kinds = [
        [each.kind for each in kubernetes_objects.read(source)] for source in (str(tmp_path / "overlay.yaml"), "-")
    ]
    assert kinds == [["Deployment", "ScaledObject", "TriggerAuthentication"]] * 2


def test_defaults_are_those_of_keda() -> None:
    names = ("pollingInterval", "minReplicaCount", "maxReplicaCount", "fallback", "advanced")
    nothing: dict[str, Any] = dict.fromkeys(names)
    scaler = workload(**nothing).scaler
    assert (scaler.minimum, scaler.maximum, scaler.poll_s, scaler.cooldown_s) == (0, 100, 30, 300)
    assert scaler.behavior is None
    assert scaler.fallback is None


@pytest.mark.parametrize(
    ("args", "concurrency"),
    [
        ("[celery, worker, --concurrency, '8']", 8),
        ("[celery, worker, -c, '6']", 6),
        ("[celery, worker, -c5]", 5),
        ("[sh, -c, 'exec celery worker --concurrency=3']", 3),
    ],
)
def test_concurrency_of_the_command_line(args: str, concurrency: int) -> None:
    text = re.sub(r"args: .*", f"args: {args}", OVERLAY)
    assert workload(text).pod.concurrency == concurrency


def test_concurrency_of_the_environment_and_of_a_config_map() -> None:
    environment = "env: [{name: WORKER_CONCURRENCY, value: '7'}]"
    assert workload(re.sub(r"args: .*", environment, OVERLAY)).pod.concurrency == 7
    from_map = re.sub(r"args: .*", "envFrom: [{configMapRef: {name: settings}}]", OVERLAY)
    settings = "kind: ConfigMap\nmetadata: {name: settings, namespace: work}\ndata: {CELERY_WORKER_CONCURRENCY: '9'}\n"
    assert workload(f"{settings}---{from_map}").pod.concurrency == 9


def test_assumptions_are_reported() -> None:
    found = workload(re.sub(r"args: .*", "", OVERLAY))
    assert found.pod.concurrency == 1
    assert any("--concurrency" in sentence for sentence in found.assumed)
    assert workload().assumed == ()


def test_paused_direction_is_disabled() -> None:
    paused = OVERLAY.replace(
        "metadata: {name: scaler,",
        "metadata: {annotations: {autoscaling.keda.sh/paused-scale-in: 'true'}, name: scaler,",
    )
    behavior = workload(paused, advanced=None).scaler.behavior
    assert behavior
    assert (behavior.down.select, behavior.up.select) == ("Disabled", "Max")


FAULTS = [
    ("kind: Deployment", "kind: StatefulSet", rf"{SCALER}\.scaleTargetRef\.name: there is no Deployment work/worker"),
    ("kind: ScaledObject", "kind: ScaledObjects", "overlay.yaml: has no ScaledObject"),
    ("- type: rabbitmq", "- type: kafka", rf"{SCALER}\.triggers\[0\]\.type: kafka cannot be simulated"),
    ("- type: rabbitmq", "- type: cpu", rf"{SCALER}\.triggers\[0\]\.type: cpu cannot be simulated"),
    ('value: "10"', "value: 10", rf"{SCALER}\.triggers\[0\]\.metadata\.value: must be a quoted text, not 10"),
    ('value: "10"', 'value: "ten"', rf"{SCALER}\.triggers\[0\]\.metadata\.value: must be a number, not 'ten'"),
    ('value: "10"', 'value: "-1"', rf"{SCALER}\.triggers\[0\]\.metadata\.value: must be at least 0"),
    ('value: "10"', "", rf"{SCALER}\.triggers\[0\]\.metadata\.value: must be at least 0\.001, not missing"),
    ('value: "10"', 'queueLength: "10"', rf"{SCALER}\..*queueLength: KEDA refuses it together with mode"),
    ("mode: QueueLength", "mode: Length", rf"{SCALER}\..*mode: must be one of .*, not 'Length'"),
    ("mode: QueueLength", "activationValue: '1'", rf"{SCALER}\..*mode: must be a text, not missing"),
    ("queueName: jobs", "", rf"{SCALER}\..*queueName: must be a text, not missing"),
    ("queueName: jobs", "queueName: jobs\n        useRegex: 'true'", rf"{SCALER}\..*useRegex: queues by regular"),
    ("protocol: http", "protocol: mqtt", rf"{SCALER}\..*protocol: must be one of amqp, auto, http, not 'mqtt'"),
    (
        "protocol: http\n        host: http://rabbitmq:15672/",
        "x: y",
        rf"{SCALER}\..*protocol: is auto, and the manifest has no host",
    ),
    ("host: http:", "hosts: http:", None),  # the host does not matter if the protocol is given
    ("mode: QueueLength", "mode: MessageRate\n        protocol: amqp", rf"{SCALER}\..*mode: MessageRate needs .* http"),
    ("maxReplicaCount: 10", "maxReplicaCount: 1000000", rf"{SCALER}\.maxReplicaCount: must be at most 10000"),
    ("maxReplicaCount: 10", "maxReplicaCount: 0", rf"{SCALER}\.maxReplicaCount: must be at least 1"),
    ("minReplicaCount: 1", "minReplicaCount: 11", rf"{SCALER}\.maxReplicaCount: must not be below minReplicaCount"),
    ("minReplicaCount: 1", "minReplicaCount: -1", rf"{SCALER}\.minReplicaCount: must be at least 0, not -1"),
    ("minReplicaCount: 1", "idleReplicaCount: 1\n  minReplicaCount: 1", rf"{SCALER}\.idleReplicaCount: must be below"),
    ("pollingInterval: 5", "pollingInterval: 0", rf"{SCALER}\.pollingInterval: must be at least 1, not 0"),
    ("pollingInterval: 5", "pollingInterval: 2.5", rf"{SCALER}\.pollingInterval: must be a whole number"),
    ("pollingInterval: 5", "pollingInterval: '5'", rf"{SCALER}\.pollingInterval: must be a number, not '5'"),
    (
        "stabilizationWindowSeconds: 60",
        "stabilizationWindow: 60",
        rf"{SCALER}\..*stabilizationWindow: is an unknown field",
    ),
    ("failureThreshold: 2", "failureThreshold: three", rf"{SCALER}\.fallback\.failureThreshold: must be a number"),
    ("{name: worker}\n  polling", "{name: worker, kind: Job}\n  polling", rf"{SCALER}\.scaleTargetRef\.kind: .* 'Job'"),
    ("cpu: 500m", "cpu: half", r"overlay\.yaml: Deployment work/worker: .*requests\.cpu: must be a quantity"),
    ("--concurrency=1", "--concurrency=0", r"Deployment work/worker: .*args: must be at least 1, not 0"),
    ("--concurrency=1", "--concurrency=900000", rf"{SCALER}\.maxReplicaCount: 10 pods of 900000 tasks are too many"),
    (
        "metadata: {name: scaler,",
        "metadata: {annotations: {autoscaling.keda.sh/paused: 'true'}, name: scaler,",
        "paused: stops scaling",
    ),
    ("  advanced:", "  advanced:\n    scalingModifiers: {formula: a + b}", rf"{SCALER}\.advanced\.scalingModifiers"),
]


@pytest.mark.parametrize(("old", "new", "sentence"), FAULTS, ids=[new for _, new, _ in FAULTS])
def test_workloads_that_cannot_be_simulated_are_refused(old: str, new: str, sentence: str | None) -> None:
    assert OVERLAY.count(old) == 1
    if sentence is None:
        assert workload(OVERLAY.replace(old, new)).queues == ("jobs",)
        return
    with pytest.raises(Wrong, match=sentence) as caught:
        workload(OVERLAY.replace(old, new))
    assert "\n" not in str(caught.value)


def test_two_scalers_of_one_queue() -> None:
    second = OVERLAY.replace("name: worker", "name: other").replace("name: scaler", "name: second")
    with pytest.raises(Wrong, match="scaler consumes the queue jobs too"):
        manifests.workloads(objects(f"{OVERLAY}---{second}"), manifests.Reading())


def test_a_trigger_can_be_left_out() -> None:
    text = OVERLAY.replace("  triggers:\n", "  triggers:\n    - {type: cpu, metadata: {value: '80'}}\n")
    (found,) = manifests.workloads(objects(text), manifests.Reading(skipped_triggers=("cpu",)))
    assert [each.queue for each in found.scaler.triggers] == ["jobs"]


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (None, "cannot be read"),
        ("", "has no object"),
        ("a: [", "is not YAML"),
        ("just text", "document 1 is not a Kubernetes object"),
        ("kind: Service\nmetadata: []", "document 1 is not a Kubernetes object"),
        ("kind: List\nitems: []", "has no object"),
    ],
)
def test_invalid_files_are_refused(content: str | None, sentence: str, tmp_path: Path) -> None:
    path = tmp_path / "overlay.yaml"
    if content is not None:
        path.write_text(content)
    with pytest.raises(Wrong, match=sentence):
        kubernetes_objects.read(str(path))


def test_a_folder_that_kustomize_refuses(tmp_path: Path) -> None:
    (tmp_path / "kustomization.yaml").write_text("resources: [missing.yaml]")
    with pytest.raises(Wrong, match=r"Kustomize cannot render it: .*missing\.yaml"):
        kubernetes_objects.read(str(tmp_path))
