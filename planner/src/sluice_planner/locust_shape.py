"""Reads the users over time of a load test, by running the `LoadTestShape` of a locustfile as Locust does.

Locust need not be installed if the file uses nothing else of it.
"""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from sluice_planner.fields import Wrong

TICK_S = 1.0
TICKS_MAX = 7 * 86400


class LoadTestShape:
    """Stands in for Locust's class if Locust is not installed; the reader sets `get_run_time`."""

    def get_current_user_count(self) -> int:
        return 0


def users(path: Path, where: str) -> list[float]:
    """The number of users in each second until the shape ends. Raises Wrong unless the file has exactly one shape."""
    module = _run(path, where)
    own = (each for each in vars(module).values() if isinstance(each, type) and each.__module__ == module.__name__)
    shapes = [each for each in own if any(base.__name__ == "LoadTestShape" for base in each.__mro__[1:])]
    if len(shapes) != 1:
        raise Wrong(f"{where}: {path}: must have one LoadTestShape, not {len(shapes)}")
    return _ticked(shapes[0](), f"{where}: {path}")


def _ticked(shape: Any, where: str) -> list[float]:
    """Users start and stop at the rate that the shape returns."""
    now, found = 0.0, list[float]()
    for tick in range(TICKS_MAX):
        shape.get_run_time = lambda at_s=tick * TICK_S: at_s
        wanted = shape.tick()
        if wanted is None:
            return found
        count, rate = wanted[:2]
        now = min(count, now + rate * TICK_S) if count >= now else max(count, now - rate * TICK_S)
        found.append(float(now))
    raise Wrong(f"{where}: its shape does not end within {TICKS_MAX / 86400:g} days")


def _run(path: Path, where: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location("sluice_shape", path)
    if spec is None or spec.loader is None or not path.is_file():
        raise Wrong(f"{where}: {path}: is not a Python file")
    module = importlib.util.module_from_spec(spec)
    stood_in = importlib.util.find_spec("locust") is None
    if stood_in:
        sys.modules["locust"] = ModuleType("locust")
        sys.modules["locust"].LoadTestShape = LoadTestShape  # type: ignore[attr-defined]
    try:
        spec.loader.exec_module(module)
    except ImportError as exc:
        raise Wrong(f"{where}: {path}: {exc}: install the package that it needs") from None
    except Exception as exc:  # noqa: BLE001 - the file may raise anything
        raise Wrong(f"{where}: {path}: fails: {type(exc).__name__}: {exc}") from None
    finally:
        if stood_in:
            del sys.modules["locust"]
    return module
