"""The running service against its OpenAPI document: generated valid and invalid requests get documented answers."""

import os
import subprocess
import sys

import pytest

from tests.harness.measured_loop_api import STEP_MAX_S
from tests.harness.system import ROOT, System


@pytest.mark.thorough
def test_every_generated_request_gets_a_documented_answer(shared: System) -> None:
    api = shared.api("tests.harness.measured_loop_api", WAIT_MAX_S="0.2", UVICORN_LOOP="asyncio")
    before = long_steps(shared)  # long steps during the start
    shared.worker("tests.harness.simple_tasks_app", WORKER_POOL="threads", WORKER_CONCURRENCY="8")
    shared.recorder()
    (shared.folder / "schemathesis.toml").write_text(f'[auth.openapi.bearer]\nbearer = "{shared.key}"\n')
    command = [sys.executable, "-m", "schemathesis.cli", "run", f"{api.url}/openapi.json", "--seed", "1", "--no-color"]
    command += ["--checks", "all", "--max-examples", "60", "--request-timeout", "20", "--generation-database", "none"]
    command += ["--exclude-checks", "use_after_free"]  # a cancelled task is still readable, as REVOKED
    environment = os.environ | {"SCHEMATHESIS_HOOKS": "tests.harness.schemathesis_hooks", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        command, cwd=shared.folder, env=environment, capture_output=True, text=True, timeout=170, check=False
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert long_steps(shared) == before  # not the gauge, which generated requests to /metrics reset
    assert api.get("/healthz") == 200


def long_steps(system: System) -> list[str]:
    """Return the logged steps of the API's event loop that exceed the maximum."""
    lines = (line for line in system.log_lines() if line["message"] == "long step")
    return [line["step"] for line in lines if line["ms"] > 1000 * STEP_MAX_S]
