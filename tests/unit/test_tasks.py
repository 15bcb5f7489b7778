"""The tasks of this project, whatever a team makes them: each is routed and has a function for the worker."""

import subprocess
import sys
from pathlib import Path

import pytest

from apps import tasks
from apps.contract import topology
from apps.tasks import TASKS
from apps.worker.functions import by_task, works_of

FOLDER = Path(tasks.__file__).parent


def test_every_task_has_one_function_and_an_existing_queue() -> None:
    assert by_task(TASKS, works_of(*tasks.work_modules())).keys() == TASKS.keys()
    assert {spec.queue for spec in TASKS.values()} <= set(topology.WORK_QUEUES)


@pytest.mark.parametrize("module", ["apps.api.app", "apps.client.__main__", "apps.worker.recorder"])
def test_only_the_worker_imports_functions(module: str) -> None:
    code = f"import sys, {module}; print([name for name in sys.modules if name.startswith('apps.tasks.')])"
    imported = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=120)
    assert ".contract'" in imported.stdout
    assert ".work'" not in imported.stdout


def test_no_other_module_names_a_family_of_tasks() -> None:
    """So a family can be replaced without any other change."""
    root = FOLDER.parents[1]
    families = [path.parent.name for path in FOLDER.glob("*/contract.py")]
    named = [f"apps.tasks.{family}" for family in families] + [f"apps/tasks/{family}" for family in families]
    sources = [
        path
        for folder in ("apps", "bench", "loadtest", "ops", "planner", "tests")
        for path in (root / folder).rglob("*.py")
        if FOLDER not in path.parents
    ]
    assert [path for path in sources if any(name in path.read_text() for name in named)] == []
