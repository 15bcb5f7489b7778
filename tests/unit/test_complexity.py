"""The complexity of a body is limited by a scan of its bytes before anything parses it."""

import json
import time

import pytest

from apps.api.body import BATCH_LEVELS, DEPTH_MAX, LIGHT_BYTES, LIGHT_VALUES, VALUES_MAX, is_light, require_bounded
from apps.api.errors import Problem


def refused(body: bytes, depth_max: int = DEPTH_MAX) -> bool:
    try:
        require_bounded(body, depth_max)
    except Problem as problem:
        return problem.kind == "too-complex"
    return False


@pytest.mark.parametrize("value", [b"1", b'"text"', b"{}", b"null"])
def test_number_of_values_is_limited(value: bytes) -> None:
    def array(elements: int) -> bytes:
        return b"[" + b",".join([value] * elements) + b"]"

    brackets = 1 if value == b"{}" else 0
    most = VALUES_MAX // (1 + brackets)
    assert not refused(array(most - brackets))
    assert refused(array(most + 1))


@pytest.mark.parametrize(
    "text", ["[" * 300, ",{" * VALUES_MAX, '"[' * 300, "\\" * 301 + '"[{' * 300, '\\"' * 999, "é,["]
)
def test_brackets_in_strings_do_not_count(text: str) -> None:
    for name, value in ((text, 1), ("name", text), (text, text)):
        for ascii_only in (True, False):
            assert not refused(json.dumps({"a": [{name: value}]}, ensure_ascii=ascii_only).encode())


def test_depth_of_nesting_is_limited() -> None:
    assert not refused(b"[" * DEPTH_MAX + b"]" * DEPTH_MAX)
    assert refused(b"[" * (DEPTH_MAX + 1) + b"]" * (DEPTH_MAX + 1))
    assert not refused(b"[" + b"[{}]," * 1000 + b"1]")
    assert not refused(b"[" * (DEPTH_MAX + 2) + b"]" * (DEPTH_MAX + 2), DEPTH_MAX + BATCH_LEVELS)


@pytest.mark.parametrize(
    "body", [b"", b"]]]]", b'"', b"[" * 1000, b"\\" * 1000, b'"' * 1000, b"\xff" * 1000, b'{"' * 500]
)
def test_scan_of_invalid_json_raises_no_other_error(body: bytes) -> None:
    refused(body)
    is_light(body)


@pytest.mark.parametrize(
    "pattern", [b'""', b'"', b"\\", b'\\"', b"[", b"[]", b"{},", b"1,", b'"a":1,', b"\x00", b'"\\\\"']
)
def test_scan_of_a_mebibyte_takes_milliseconds(pattern: bytes) -> None:
    body = (pattern * (1024 * 1024))[: 1024 * 1024]
    for scan in (is_light, refused):
        started_s = time.thread_time()
        scan(body)
        assert time.thread_time() - started_s < 0.2


def test_light_body_is_recognized_up_to_its_limits() -> None:
    assert is_light(b"[" + b",".join([b"1"] * LIGHT_VALUES) + b"]")
    assert not is_light(b"[" + b",".join([b"1"] * (LIGHT_VALUES + 1)) + b"]")
    assert is_light(b'"' + b"a" * (LIGHT_BYTES - 2) + b'"')
    assert not is_light(b'"' + b"a" * (LIGHT_BYTES - 1) + b'"')
    assert is_light(b"[" * DEPTH_MAX + b"]" * DEPTH_MAX)
    assert not is_light(b"[" * (DEPTH_MAX + 1) + b"]" * (DEPTH_MAX + 1))
