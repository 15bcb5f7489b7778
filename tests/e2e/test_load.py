"""`make load` against the cluster, through NGINX, from outside and as a Job inside: every gate holds."""

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from loadtest.job.image import NAME
from minicluster import app_images
from minicluster.lifecycle import Minicluster
from ops import cluster
from ops.command import ROOT, show
from tests.e2e import objects
from tests.e2e.evidence import FOLDER
from tests.e2e.provider import Provider
from tests.e2e.system import System

RUN_TIMEOUT_S = 600
KEPT = FOLDER.parent
INSIDE = ROOT / "loadtest" / "job"
JOB = ("load", "job", "load")


@pytest.fixture(scope="module")
def threads(load: System) -> Iterator[System]:
    """Workers that carry the load without scaling; the load overlay is applied again for the next modules."""
    objects.apply(objects.OVERLAYS / "threads")
    objects.rolled_out(objects.WORKER)
    objects.settled(objects.WORKER, 2)
    yield load
    objects.apply(objects.OVERLAYS / "load")


@pytest.fixture
def image(provider: Provider, tmp_path: Path) -> None:
    """The Job's image, imported into the nodes."""
    archive = tmp_path / "load.tar"
    settings = app_images.settings(local_base=isinstance(provider, Minicluster))
    show("make", "load-image", timeout_s=RUN_TIMEOUT_S, env=settings)
    app_images.save(NAME, archive)
    provider.load_image(archive)


@pytest.fixture
def job(threads: System, image: None) -> Iterator[None]:  # noqa: ARG001 - the Job needs them
    """The started Job, deleted afterwards; a Job of a killed run is deleted first, or it would be judged again."""
    delete = ("delete", f"--kustomize={INSIDE}", "--ignore-not-found")
    cluster.ask(*delete, timeout_s=RUN_TIMEOUT_S)
    try:
        objects.apply(INSIDE)
        yield
    finally:
        cluster.ask(*delete, timeout_s=RUN_TIMEOUT_S)


def test_smoke_load_passes_its_gates_and_reports_the_replicas(threads: System, tmp_path: Path) -> None:
    command = ["make", "load", "SHAPE=smoke", f"HOST={threads.entrance}", "CLUSTER=1", f"FOLDER={tmp_path}/load"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=RUN_TIMEOUT_S, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    KEPT.mkdir(parents=True, exist_ok=True)
    for kind in ("html", "json"):
        shutil.copy(tmp_path / "load" / f"report.{kind}", KEPT / f"load.{kind}")
    assert_sane(json.loads((KEPT / "load.json").read_text()))


@pytest.mark.usefixtures("job")
def test_smoke_load_inside_the_cluster_passes_its_gates() -> None:
    objects.until(lambda: ended() is not None, RUN_TIMEOUT_S, "the end of the Job")
    printed = cluster.ask("logs", "--namespace=load", "job/load")
    assert ended() == "Complete", printed
    told, _, text = printed.partition("\n{")
    assert "The gates held." in told
    assert_sane(json.loads("{" + text))


def ended() -> str | None:
    """Return the type of the condition with which the Job ended; None while it runs."""
    conditions = objects.get(JOB)["status"].get("conditions", [])
    return next((one["type"] for one in conditions if one["type"] in {"Complete", "Failed"}), None)


def assert_sane(report: dict[str, Any]) -> None:
    """Check that every gate held, and that the series are plausible for a cluster under this load."""
    assert report["verdict"] == "held"
    assert all(gate["held"] for gate in report["gates"])
    series = report["series"]
    workers = [each for each in series["workers"] if each is not None]
    (least,), (most,) = (set(series[name]) - {None} for name in ("workers_min", "workers_max"))
    assert len(workers) > 20
    assert all(least <= each <= most for each in workers)
    assert max(filter(None, series["finished_per_s"])) > 1
