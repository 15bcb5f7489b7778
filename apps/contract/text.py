r"""Sanitizes text of tasks, clients and libraries before it is stored, logged or sent.

Not every Python string can be encoded: a lone surrogate stands for a byte that is not UTF-8, such as in a file name. It
is replaced by its backslash escape, `caf\udce9.mp4`, which preserves the byte and, unlike a replacement character,
keeps different names different. In text for people (messages, names, log fields), control characters except tab and
line breaks are escaped too: terminals interpret them, and PostgreSQL refuses NUL. Results keep them: a result is data,
and JSON escapes them itself.
"""

import re
from typing import Any

_UNFIT = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")


def clean(text: str, max_chars: int) -> str:
    """Escape a text and limit it to `max_chars`; a longer text keeps its head, a note of its length, and its tail."""
    shortened = _shorten(text, max_chars, len(text))  # first: bounds the cost of a text of megabytes
    if shortened.isprintable():
        return shortened
    escaped = _UNFIT.sub(lambda found: found[0].encode("unicode_escape").decode(), shortened)
    return _shorten(escaped, max_chars, len(text))


def clean_all(value: Any, max_chars: int) -> Any:
    """Apply `clean` to each string of a JSON document, including the names in its objects."""
    if isinstance(value, str):
        return clean(value, max_chars)
    if isinstance(value, dict):
        return {clean(str(name), max_chars): clean_all(one, max_chars) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [clean_all(one, max_chars) for one in value]
    return value


def _shorten(text: str, max_chars: int, whole_chars: int) -> str:
    if len(text) <= max_chars:
        return text
    between = f" ... ({whole_chars} characters in all) ... "
    kept = max_chars - len(between)
    if kept < 2:  # noqa: PLR2004 - a character at each end
        return text[:max_chars]
    return text[: kept - kept // 2] + between + text[len(text) - kept // 2 :]


def escape_surrogates(text: str) -> str:
    """Escape lone surrogates, the only characters that UTF-8 cannot encode."""
    return text.encode("utf-8", "backslashreplace").decode()
