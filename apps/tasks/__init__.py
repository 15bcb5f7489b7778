"""All tasks. Each folder is a family of tasks; a team replaces only this package (README.md, Add a task).

A family's `contract.py` has models and specs, and is imported by the API; `work.py` has functions and their settings,
and is imported only by the worker. Therefore only the worker needs the packages that the functions use.
"""

from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType

from apps.contract.tasks import TaskSpec, registry

# discovered: to add or remove a family, add or remove its folder
_FAMILIES = sorted(path.parent.name for path in Path(__file__).parent.glob("*/contract.py"))


def _specs() -> Iterator[TaskSpec]:
    for family in _FAMILIES:
        yield from filter(_is_spec, vars(import_module(f"{__name__}.{family}.contract")).values())


def _is_spec(value: object) -> bool:
    return isinstance(value, TaskSpec)


def work_modules() -> list[ModuleType]:
    """Import the module with the functions of each family."""
    return [import_module(f"{__name__}.{family}.work") for family in _FAMILIES]


TASKS = registry(*_specs())
if not TASKS:
    raise SystemExit("apps/tasks has no task: add a folder with contract.py and work.py (README.md, Add a task).")
