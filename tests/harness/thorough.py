"""Parameters that are left to the thorough tests, and the two pools of a worker, of which threads are."""

from typing import Any

import pytest


def thorough(*values: Any) -> list[Any]:
    """Parameters of the thorough tests alone; a tuple is the parameters of one test."""
    return [
        pytest.param(*(each if isinstance(each, tuple) else (each,)), marks=pytest.mark.thorough) for each in values
    ]


POOL_PARAMETERS = ("prefork", *thorough("threads"))
POOLS = pytest.mark.parametrize("pool", POOL_PARAMETERS)
