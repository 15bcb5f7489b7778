"""The functions of test tasks, in the form that the worker expects."""

from collections.abc import Mapping
from types import ModuleType
from typing import Any

from apps.contract.tasks import Registry
from apps.worker.functions import Work


def works(
    tasks: Registry, *modules: ModuleType, retry_on: Mapping[str, tuple[type[Exception], ...]] | None = None
) -> list[Work[Any, Any]]:
    """Return the function of each task: the first function of its name in `modules`.

    Tasks without an entry in `retry_on` are retried on ConnectionError.
    """

    def function(name: str) -> Any:
        return next(getattr(module, name) for module in modules if hasattr(module, name))

    retried = retry_on or {}
    return [Work(spec, function(name), retried.get(name, (ConnectionError,))) for name, spec in tasks.items()]
