"""The worker of `tests.harness.worker`, in which `begin` or `end` of the backend raises, as DEFECT names it."""

import os
from typing import Any, NoReturn

from apps.worker.backend import Backend
from tests.harness.worker import app

__all__ = ["app"]


def _defect(*_: Any) -> NoReturn:
    raise ValueError("a defect of ours")


setattr(Backend, os.environ["DEFECT"], _defect)
