"""Reads external input field by field: an error is one sentence with the file and the field."""

import json
import math
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SHOWN_MAX = 60


class Wrong(Exception):
    """Input that cannot be used. The message is one sentence: where, and what is wrong."""


@dataclass(frozen=True)
class Field:
    """A value and its place: `where` is the file and object, `path` the field in it."""

    value: Any
    where: str
    path: str = ""

    def wrong(self, message: str) -> Wrong:
        """An error about this field, to be raised."""
        return Wrong(": ".join(part for part in (self.where, self.path, message) if part))

    def get(self, name: str) -> "Field":
        """The field of that name; its value is None if it is missing."""
        path = f"{self.path}.{name}" if self.path else name
        return Field(self.mapping().get(name), self.where, path)

    def mapping(self) -> Mapping[str, Any]:
        if not isinstance(self.value, Mapping):
            raise self.wrong(f"must be a mapping, not {_shown(self.value)}")
        return self.value

    def items(self) -> Iterator["Field"]:
        """The entries of a list."""
        if not isinstance(self.value, list):
            raise self.wrong(f"must be a list, not {_shown(self.value)}")
        yield from (Field(value, self.where, f"{self.path}[{number}]") for number, value in enumerate(self.value))

    def only(self, *names: str) -> "Field":
        """The field itself. Raises Wrong if its mapping has other fields than these."""
        for name in self.mapping():
            if name not in names:
                raise self.get(name).wrong("is an unknown field")
        return self

    def default(self, value: Any) -> "Field":
        """The field itself, or one with the given value if it is missing."""
        return self if self.value is not None else Field(value, self.where, self.path)

    def integer(self, least: int = 0, most: int = 2**31 - 1) -> int:
        number = self.number(least, most)
        if not number.is_integer():
            raise self.wrong(f"must be a whole number, not {_shown(self.value)}")
        return int(number)

    def number(self, least: float = -math.inf, most: float = math.inf) -> float:
        if isinstance(self.value, bool) or not isinstance(self.value, (int, float)) or not math.isfinite(self.value):
            raise self.wrong(f"must be a number, not {_shown(self.value)}")
        if not least <= self.value <= most:
            bound = f"at least {least:g}" if self.value < least else f"at most {most:g}"
            raise self.wrong(f"must be {bound}, not {_shown(self.value)}")
        return float(self.value)

    def text(self, among: Collection[str] = ()) -> str:
        if not isinstance(self.value, str):
            raise self.wrong(f"must be a text, not {_shown(self.value)}")
        if among and self.value not in among:
            raise self.wrong(f"must be one of {', '.join(sorted(among))}, not {_shown(self.value)}")
        return self.value


def _shown(value: Any) -> str:
    if value is None:
        return "missing"
    return repr(value) if len(repr(value)) <= SHOWN_MAX else f"{repr(value)[:SHOWN_MAX]}..."


def read_json(path: Path) -> Field:
    """The content of a JSON file. Raises Wrong if the file cannot be read or is not JSON."""
    try:
        return Field(json.loads(path.read_text()), str(path))
    except OSError as exc:
        raise Wrong(f"{path}: cannot be read ({exc.strerror})") from None
    except ValueError as exc:
        raise Wrong(f"{path}: is not JSON ({exc})") from None


def split_kind(text: str, kinds: Collection[str], where: str) -> tuple[str, str]:
    """Split `kind:rest`; without a colon, the kind is `constant`. Raises Wrong if the kind is none of `kinds`."""
    kind, colon, rest = text.partition(":")
    if not colon:
        return "constant", text
    if kind not in kinds:
        raise Wrong(f"{where}: {kind!r} is not one of {', '.join(kinds)}")
    return kind, rest
