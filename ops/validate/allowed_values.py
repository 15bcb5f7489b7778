"""Rules that are tables: which values a field may have, and why."""

from collections.abc import Collection, Iterator
from typing import Any

from ops.validate.tree import Finding, Object, at

Wanted = dict[str, tuple[Collection[Any], str]]
"""Path -> (the values that are allowed, None if the field may be unset; the reason)."""


def must(each: Object, where: str, there: dict[str, Any], wanted: Wanted) -> Iterator[Finding]:
    """Report each field of `there` whose value the table does not allow. `where` is the path of `there`."""
    for path, (allowed, reason) in wanted.items():
        value = at(there, path)
        if value not in allowed:
            expected = " or ".join("unset" if one is None else str(one) for one in allowed if one != "")
            yield each.finding(f"{where}.{path}", f"must be {expected}, not {value}: {reason}")
