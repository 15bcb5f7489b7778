r"""Text of a task, a client or a library, made fit to be stored, logged and sent: the one place that does it.

Not every Python string can be encoded: a lone surrogate stands for a byte that is not UTF-8, as in names of files. It
becomes its backslash escape, `caf\udce9.mp4`, which still says which byte it was, and keeps different names different,
unlike a replacement character. In text for people (messages, names, log fields) control characters become escapes too,
except tab and line breaks: terminals act on them, and PostgreSQL refuses NUL. In results they stay: JSON has escapes of
its own for them, and a result is data.
"""

import re
from typing import Any

_UNFIT = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")


def clean(text: str, max_chars: int) -> str:
    """The text with escapes, at most so many characters of it: its head, how long it is, and its tail."""
    shortened = _shorten(text, max_chars, len(text))  # before the rest: what a text of megabytes costs is bounded too
    if shortened.isprintable():
        return shortened
    escaped = _UNFIT.sub(lambda found: found[0].encode("unicode_escape").decode(), shortened)
    return _shorten(escaped, max_chars, len(text))


def clean_all(value: Any, max_chars: int) -> Any:
    """The same for each string of a JSON document, the names in its objects included."""
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
