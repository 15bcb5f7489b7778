"""The mean of a few runs with Student's confidence interval."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

# Student's t for 95% (two-sided) at 1 to 30 degrees of freedom. Above 30, _NORMAL_95 approximates it.
_T_95 = (
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131,
    2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042,
)  # fmt: skip
_NORMAL_95 = 1.96


@dataclass(frozen=True)
class Mean:
    """A mean and half the width of its 95% confidence interval, which is infinite for one run."""

    value: float
    half: float

    @property
    def upper(self) -> float:
        return self.value + self.half


def mean(values: Sequence[float]) -> Mean:
    """The mean of independent runs; infinite if one of them is."""
    count = len(values)
    value = sum(values) / count
    if math.isinf(value) or count == 1:
        return Mean(value, math.inf)
    variance = sum((each - value) ** 2 for each in values) / (count - 1)
    t = _T_95[count - 2] if count - 2 < len(_T_95) else _NORMAL_95
    return Mean(value, t * math.sqrt(variance / count))
