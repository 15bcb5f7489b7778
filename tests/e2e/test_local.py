"""One `kubectl apply -k` of an overlay deploys the system, and a second one changes nothing."""

import json
import subprocess
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from ops import cluster
from ops.command import Unusable
from ops.forward import forwarded
from ops.tools import kubectl
from tests.e2e import existing, objects
from tests.e2e.system import SPEC, System, example

DIFF_TIMEOUT_S = 120
# in addition to the duration of the task
RESULT_TIMEOUT_S = 60
# the port in kustomize/base/worker/recorder.yaml
METRICS_PORT = 9100
METRICS_TIMEOUT_S = 10


def test_every_workload_is_ready(local: System) -> None:  # noqa: ARG001
    for name, count in ((objects.API, 1), (objects.RECORDER, 1), (objects.WORKER, 1)):
        objects.settled(name, count, timeout_s=60)


def test_task_through_nginx_returns_its_result(local: System) -> None:
    with local.client() as client:
        task = client.result(client.submit(example()), SPEC.hard_limit_s + RESULT_TIMEOUT_S)
    assert task.status == "SUCCESS"
    assert SPEC.output.model_validate(task.result)


def test_recorder_exports_its_metrics(local: System) -> None:  # noqa: ARG001
    with (
        forwarded("celery-workers", "deployment/dead-letter-recorder", METRICS_PORT) as port,
        urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=METRICS_TIMEOUT_S) as answer,
    ):
        told = answer.read().decode()
    assert {"sluice_broker_up 1.0", "sluice_redis_up 1.0", "sluice_parked_total 0.0"} <= set(told.splitlines())


def test_diff_is_empty(local: System) -> None:  # noqa: ARG001
    diff = [str(kubectl()), "diff", f"--kustomize={objects.LOCAL}"]
    done = subprocess.run(diff, capture_output=True, text=True, timeout=DIFF_TIMEOUT_S, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_second_apply_changes_nothing(local: System) -> None:  # noqa: ARG001
    # not by the output of kubectl: it always replaces a PodDisruptionBudget's selector, and then prints `configured`
    before = wanted()
    assert len(before) > 20
    objects.apply(objects.LOCAL)
    assert wanted() == before


def test_existing_cluster_with_a_system_is_refused_until_its_owner_confirms(
    local: System,  # noqa: ARG001 - deploys the system
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config = json.loads(cluster.ask("config", "view", "--raw", "--minify", "--output=json"))
    config["current-context"] = config["contexts"][0]["name"] = "kind-mine"
    (tmp_path / "config").write_text(json.dumps(config))
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "config"))
    monkeypatch.setattr(existing, "KUBECONFIG", tmp_path / "copy")
    monkeypatch.delenv("E2E_CONFIRM", raising=False)
    mine = existing.Existing("kind-mine")
    with pytest.raises(Unusable, match="has a system already"):
        mine.start()
    monkeypatch.setenv("E2E_CONFIRM", "kind-mine")
    assert mine.start() == tmp_path / "copy"
    mine.stop()
    assert not (tmp_path / "copy").exists()


def wanted() -> list[dict[str, Any]]:
    """Return every object of the overlay without its status and the fields that the server sets."""
    items: list[dict[str, Any]] = json.loads(cluster.ask("get", f"--kustomize={objects.LOCAL}", "--output=json"))[
        "items"
    ]
    for each in items:
        each.pop("status", None)
        for name in ("resourceVersion", "managedFields"):
            each["metadata"].pop(name, None)
    return items
