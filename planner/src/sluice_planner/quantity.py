"""Kubernetes' quantities: `500m`, `2.5`, `1Gi`."""

import math
import re
from fractions import Fraction

from sluice_planner.fields import Field

_SUFFIXES = {"n": Fraction(1, 10**9), "u": Fraction(1, 10**6), "m": Fraction(1, 1000), "": Fraction(1)}
_SUFFIXES |= {suffix: Fraction(1000**power) for power, suffix in enumerate("kMGTPE", 1)}
_SUFFIXES |= {suffix: Fraction(1024**power) for power, suffix in enumerate(("Ki", "Mi", "Gi", "Ti", "Pi", "Ei"), 1)}
_QUANTITY = re.compile(r"([+-]?(?:\d+\.?\d*|\.\d+))(?:([eE][+-]?\d+)|([numkMGTPE]|[KMGTPE]i|))")


def quantity(field: Field) -> Fraction:
    """The exact number. Wrong if it is none."""
    text = str(field.value) if isinstance(field.value, (int, float)) and not isinstance(field.value, bool) else None
    match = _QUANTITY.fullmatch(text or field.text())
    if match is None:
        raise field.wrong(f"must be a quantity such as 500m or 1Gi, not {field.value!r}")
    number, exponent, suffix = match.groups()
    return Fraction(number + (exponent or "")) * _SUFFIXES[suffix or ""]


def milli(field: Field) -> int:
    """In thousandths, rounded up as Kubernetes does."""
    return math.ceil(quantity(field) * 1000)
