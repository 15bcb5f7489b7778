"""Durations and rates: parsed from `90`, `90s`, `1h30m`, `1.5h`, `1d`, `20/s`; and formatted in words."""

import re

from sluice_planner.fields import Field, Wrong

_UNITS_S = {"": 1, "ms": 0.001, "s": 1, "m": 60, "min": 60, "h": 3600, "d": 86400}
_PART = re.compile(r"(\d+\.?\d*|\.\d+) *(ms|s|min|m|h|d)")
_DURATION = re.compile(rf"(?:{_PART.pattern} *)+")
DAY_S = 86400
HOUR_S = 3600
MINUTE_S = 60


def parse_duration(value: object) -> float | None:
    """A duration in seconds; a number without a unit is in seconds. None if the value is not a duration."""
    text = str(value).strip()
    if re.fullmatch(r"\d+\.?\d*|\.\d+", text):
        return float(text)
    if not _DURATION.fullmatch(text):
        return None
    return sum(float(number) * _UNITS_S[unit] for number, unit in _PART.findall(text))


def seconds(text: str, where: str) -> float:
    """A duration in seconds. Raises Wrong if the text is not a duration."""
    found = parse_duration(text)
    if found is None:
        raise Field(text, where).wrong(f"must be a time such as 90s, 10m or 1h, not {text!r}")
    return found


def per_second(text: str, where: str) -> float:
    """Parse a rate: `20/s`, `1200/m`, or `20`, which is per second."""
    number, _, unit = text.partition("/")
    try:
        rate = float(number)
    except ValueError:
        rate = float("nan")
    if unit not in _UNITS_S or not 0 <= rate < float("inf"):
        raise Wrong(f"{where}: must be a rate such as 20/s or 100/m, not negative, not {text!r}")
    return rate / _UNITS_S[unit]


def shown(time_s: float) -> str:
    """Format a duration: `12.5 s`, `8 m 20 s`, `3 h 20 m`."""
    if time_s < MINUTE_S:
        return f"{time_s:.3g} s"
    if time_s < HOUR_S:
        return _parts(time_s, MINUTE_S, "m", 1, "s")
    if time_s < DAY_S:
        return _parts(time_s, HOUR_S, "h", MINUTE_S, "m")
    return _parts(time_s, DAY_S, "d", HOUR_S, "h")


def _parts(time_s: float, big_s: int, big: str, small_s: int, small: str) -> str:
    smalls = round(time_s / small_s)
    whole, rest = divmod(smalls, big_s // small_s)
    return f"{whole} {big} {rest} {small}" if rest else f"{whole} {big}"
