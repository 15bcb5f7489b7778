"""The worker of `tests.harness.worker` with a defect around the function: in `begin` or in `end`, as DEFECT says."""

import os
from typing import Any, NoReturn

from apps.worker.backend import Backend
from tests.harness.worker import app

__all__ = ["app"]


def _defect(*_: Any) -> NoReturn:
    raise ValueError("a defect of ours")


setattr(Backend, os.environ["DEFECT"], _defect)
