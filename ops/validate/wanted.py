"""Rules that are tables: what a field may be, and why."""

from collections.abc import Collection, Iterator
from typing import Any

from ops.validate.tree import Finding, Object, at

Wanted = dict[str, tuple[Collection[Any], str]]
"""Path -> (what may be there, None if nothing need be; why)."""


def must(each: Object, where: str, there: dict[str, Any], wanted: Wanted) -> Iterator[Finding]:
    """What is not as the table wants it; `where` leads to what is looked at. Keys may contain dots."""
    for path, (may, reason) in wanted.items():
        value = there[path] if path in there else at(there, path)
        if value not in may:
            expected = " or ".join("unset" if one is None else str(one) for one in may if one != "")
            yield each.finding(f"{where}.{path}", f"must be {expected}, not {value}: {reason}")
