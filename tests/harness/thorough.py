"""Marks parameters that only the thorough tests run, and parametrizes tests with a worker's two pools."""

from typing import Any

import pytest


def thorough(*values: Any) -> list[Any]:
    """Mark parameters for the thorough tests; a tuple has the parameters of one test."""
    return [
        pytest.param(*(each if isinstance(each, tuple) else (each,)), marks=pytest.mark.thorough) for each in values
    ]


POOL_PARAMETERS = ("prefork", *thorough("threads"))
POOLS = pytest.mark.parametrize("pool", POOL_PARAMETERS)
