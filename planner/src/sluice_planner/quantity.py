"""Kubernetes' quantities: `500m`, `2.5`, `1Gi`."""

import math
import re
from fractions import Fraction

from sluice_planner.fields import Field

_SUFFIXES = {"n": Fraction(1, 10**9), "u": Fraction(1, 10**6), "m": Fraction(1, 1000), "": Fraction(1)}
_SUFFIXES |= {suffix: Fraction(1000**power) for power, suffix in enumerate("kMGTPE", 1)}
_SUFFIXES |= {suffix: Fraction(1024**power) for power, suffix in enumerate(("Ki", "Mi", "Gi", "Ti", "Pi", "Ei"), 1)}
_QUANTITY = re.compile(r"([+-]?(?:\d+\.?\d*|\.\d+))(?:([eE][+-]?\d+)|([numkMGTPE]|[KMGTPE]i|))")


def parse_quantity(value: object) -> Fraction | None:
    """The exact number; None if the value is not a quantity."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    match = _QUANTITY.fullmatch(str(value))
    if match is None:
        return None
    number, exponent, suffix = match.groups()
    return Fraction(number + (exponent or "")) * _SUFFIXES[suffix or ""]


def quantity(field: Field) -> Fraction:
    """The exact number of a field. Raises Wrong if it is not a quantity."""
    found = parse_quantity(field.value)
    if found is None:
        raise field.wrong(f"must be a quantity such as 500m or 1Gi, not {field.value!r}")
    return found


def milli(field: Field) -> int:
    """A field's quantity in thousandths, rounded up as Kubernetes does."""
    return math.ceil(quantity(field) * 1000)
