"""Parses the record of the controller's settings and annotations (ops/validate/controller-keys), and checks values."""

import re
from typing import NamedTuple

TIME = r"(\d+y)?\s*(\d+M)?\s*(\d+w)?\s*(\d+d)?\s*(\d+h)?\s*(\d+m)?\s*(\d+s?)?\s*(\d+ms)?"
# form -> (what a message calls it, its pattern)
FORMS = {
    "bool": ("true or false", r"true|false|True|False|TRUE|FALSE|t|f|T|F|1|0"),
    "number": ("a number", r"\d+"),
    "time": ("a time, as 60s", rf"(?=.*\d){TIME}"),
    "size": ("a size, as 10m", r"\d+[kKmM]?"),
    "offset": ("a size, as 2m or 1g", r"\d+[kKmMgG]?"),
    "buffers": ("a number and a size, as 8 4k", r"\d+ \d+[kKmM]?"),
    "rate": ("a rate, as 100r/s", r"0*[1-9]\d*r/[sm]"),
    "variables": ("variables, as ${binary_remote_addr}", r"(\$\{[a-zA-Z_]\w*\}|\$[a-zA-Z_]\w*)+"),
    "redirect-code": ("301, 302, 307 or 308", r"30[1278]"),
    "status": ("a status from 400 to 599", r"[45]\d\d"),
    "level": ("info, notice, warn or error", r"info|notice|warn|error"),
    "networks": ("addresses or networks with commas", r"[\da-fA-F.:/]+(,\s*[\da-fA-F.:/]+)*"),
    "text": ("text", r"(?s).*"),
}


class Key(NamedTuple):
    """What the controller does with one name."""

    form: str
    rejected: bool  # a value of another form makes it reject the Ingress
    plus: bool  # needs NGINX Plus


def keys(record: str, kind: str) -> dict[str, Key]:
    """Name -> Key of each `setting` or `annotation` of a record."""
    words = [line.split() for line in record.splitlines() if line.startswith(f"{kind} ")]
    return {name: Key(form, "rejected" in flags, "plus" in flags) for _, name, form, *flags in words}


def is_of(form: str, value: str) -> bool:
    """Whether a value has the form."""
    return re.fullmatch(FORMS[form][1], value.strip()) is not None
