"""Rules in the form of tables: the allowed values of a field, and the reason."""

from collections.abc import Collection, Iterator
from typing import Any

from ops.validate.tree import Finding, Object, at

AllowedValues = dict[str, tuple[Collection[Any], str]]
"""Path of a field -> (allowed values, with None if the field may be unset; reason)."""


def check_values(each: Object, where: str, fields: dict[str, Any], table: AllowedValues) -> Iterator[Finding]:
    """Report each of the `fields` whose value the table does not allow. `where` is the path of `fields`."""
    for path, (allowed, reason) in table.items():
        value = at(fields, path)
        if value not in allowed:
            expected = " or ".join("unset" if one is None else str(one) for one in allowed if one != "")
            yield each.finding(f"{where}.{path}", f"must be {expected}, not {value}: {reason}")
