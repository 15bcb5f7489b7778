"""`make load` against the cluster, through NGINX: the gates hold there, and the report shows the replicas."""

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.run import ROOT
from tests.e2e import objects
from tests.e2e.evidence import FOLDER
from tests.e2e.system import System

RUN_TIMEOUT_S = 600
KEPT = FOLDER.parent
# of tests/e2e/overlays/ledger
TIMES = ("TASK_1_S=1", "TASK_2_S=5")


@pytest.fixture(scope="module")
def threads(load: System) -> Iterator[System]:
    """Workers that carry the load without scaling; taken back for the modules that come after."""
    objects.apply(objects.OVERLAYS / "threads")
    objects.rolled_out(objects.WORKER)
    objects.settled(objects.WORKER, 2)
    yield load
    objects.apply(objects.OVERLAYS / "load")


def test_smoke_holds_and_its_report_shows_the_replicas(threads: System, tmp_path: Path) -> None:
    command = ["make", "load", "SHAPE=smoke", f"HOST={threads.entrance}", "CLUSTER=1", f"FOLDER={tmp_path}/load"]
    done = subprocess.run(
        [*command, *TIMES], capture_output=True, text=True, timeout=RUN_TIMEOUT_S, check=False, cwd=ROOT
    )
    assert done.returncode == 0, done.stdout + done.stderr
    KEPT.mkdir(parents=True, exist_ok=True)
    for kind in ("html", "json"):
        shutil.copy(tmp_path / "load" / f"report.{kind}", KEPT / f"load.{kind}")
    series = json.loads((KEPT / "load.json").read_text())["series"]
    workers = [each for each in series["workers"] if each is not None]
    (least,), (most,) = (set(series[name]) - {None} for name in ("workers_min", "workers_max"))
    assert len(workers) > 20
    assert all(least <= each <= most for each in workers)
    assert max(filter(None, series["finished_per_s"])) > 1
