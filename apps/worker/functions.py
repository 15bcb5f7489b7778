"""Functions of tasks, each with its spec and the errors to retry on. A family's `work.py` contains them."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Generic, ParamSpec, TypeVar

from pydantic import BaseModel
from pydantic_settings import BaseSettings

from apps.contract.settings import load
from apps.contract.tasks import Registry, TaskSpec

P = ParamSpec("P")
R = TypeVar("R", bound=BaseModel)


@dataclass(frozen=True)
class Work(Generic[P, R]):
    """A task's function. Calling a Work, for example in a test, calls the function."""

    spec: TaskSpec
    function: Callable[P, R]
    retry_on: tuple[type[Exception], ...] = ()
    """Transient errors, after which the task is retried. Any other error ends the task as FAILURE."""
    settings: type[BaseSettings] | None = None

    def __call__(self, *arguments: P.args, **named: P.kwargs) -> R:
        return self.function(*arguments, **named)

    def loaded_settings(self) -> tuple[BaseSettings, ...]:
        """The function's arguments after the input. Raises SystemExit with a sentence for each invalid setting."""
        return () if self.settings is None else (load(self.settings),)


def work(
    spec: TaskSpec, *, retry_on: tuple[type[Exception], ...] = (), settings: type[BaseSettings] | None = None
) -> Callable[[Callable[P, R]], Work[P, R]]:
    """Register a function for a task.

    The function takes the validated input, and returns the spec's output model. With `settings`, it takes them as its
    second argument: the worker reads them from its environment at the start. The function may run more than once
    (at-least-once delivery), so it should be idempotent.
    """
    return lambda function: Work(spec, function, retry_on, settings)


def works_of(*modules: ModuleType) -> list[Work[Any, Any]]:
    """All task functions in these modules."""
    return [each for module in modules for each in vars(module).values() if isinstance(each, Work)]


def by_task(tasks: Registry, works: Iterable[Work[Any, Any]]) -> dict[str, Work[Any, Any]]:
    """Short name -> work. Raises SystemExit unless each task has exactly one function, and each function a task."""
    found: dict[str, Work[Any, Any]] = {}
    for each in works:
        name = each.spec.short_name
        if tasks.get(name) != each.spec:
            raise SystemExit(f"The function of {each.spec.name} has no task: define its TaskSpec in a contract.py.")
        if found.setdefault(name, each) is not each:
            raise SystemExit(f"Task {each.spec.name} has two functions: leave one of them out.")
    for name, spec in tasks.items():
        if name not in found:
            raise SystemExit(f"Task {spec.name} has no function: add one with @work(...) to the work.py beside it.")
    return found
