"""No request blocks the event loop: the CPU time of each step is bounded for any body."""

import json
import re
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from apps.contract.message import read_input
from tests.harness.measured_loop_api import STEP_MAX_S, Tree
from tests.harness.system import DEADLINE_S, Api, System
from tests.harness.thorough import thorough

BODY_MAX_BYTES = 1024 * 1024
JSON = {"Content-Type": "application/json"}


@pytest.fixture(scope="module")
def api(shared: System) -> Iterator[Api]:
    api = shared.api("tests.harness.measured_loop_api", UVICORN_LOOP="asyncio", TEST_HEAVY="1")
    api.metric("test_longest_step_seconds")  # discard the steps of the start
    yield api
    assert api.get("/healthz") == 200
    assert "unhandled" not in shared.logs()


def filled(before: str, part: str, after: str, most: int = BODY_MAX_BYTES - 2000) -> bytes:
    """Return a body of nearly `most` bytes, filled with copies of `part`; `#` in a part is replaced by its number."""
    size = len(before) + len(after)
    if "#" not in part:
        return f"{before}{','.join([part] * ((most - size - 1) // (len(part) + 1)))}{after}".encode()
    parts = []
    number = 0
    while size < most:
        parts.append(part.replace("#", str(number)))
        size += len(parts[-1]) + 1
        number += 1
    return f"{before}{','.join(parts[:-1])}{after}".encode()


NAMED = '{"task":"first","name":"a"'
BODIES = {
    "unknown keys": filled(NAMED + ",", '"k#":1', "}"),
    "unknown keys within the bound": filled(NAMED + ",", '"k#":1', "}", 480_000),
    "one key again and again": filled(NAMED + ",", '"name":"b"', "}"),
    "one task again and again": filled("{", '"task":"first"', "}"),
    "unknown tasks": filled('{"task":[', '"t#"', "]}"),
    "long unknown task": filled('{"task":"', "t#", '"}'),
    "long unknown key": filled(NAMED + ',"', "k#", '":1}'),
    "numbers": filled('{"task":"numbers","values":[', "1.5", "]}", 390_000),
    "too many numbers": filled('{"task":"numbers","values":[', "1", "]}"),
    "no numbers": filled('{"task":"numbers","values":[', '"a"', "]}", 390_000),
    "named numbers": filled('{"task":"numbers","values":[],"named":{', '"k#":"a"', "}}", 900_000),
    "union": filled('{"task":"union5","values":[', "1", "]}", 199_000),
    "union of 4,000 bytes": filled('{"task":"union5","values":[', "1", "]}", 4_000),
    "union of 500 values": filled('{"task":"union5","values":[', "1", "]}", 1_020),
    "union of objects": filled('{"task":"union5","values":[', '{"task":"tree","x":{}}', "]}", 490_000),
    "wide tree": filled('{"task":"tree","children":[', '{"task":"tree"}', "]}", 780_000),
    "bad tree": filled('{"task":"tree","children":[', '{"children":{}}', "]}", 490_000),
    "deep tree": b'{"task":"tree","children":[' * 90 + b"1" + b"]}" * 90,
    "deepest": b'{"task":"tree","value":' + b"[" * 197 + b"1" + b"]" * 197 + b"}",
    "too deep": b'{"task":"tree","value":' + b"[" * 198 + b"1" + b"]" * 198 + b"}",
    "unclosed": b"[" * BODY_MAX_BYTES,
    "unclosed objects": b'{"a":' * 200_000,
    "closed only": b"]" * BODY_MAX_BYTES,
    "empty arrays": filled('{"task":"numbers","values":[', "[]", "]}"),
    "long text": (NAMED[:-1] + "a" * 1_000_000 + '"}').encode(),
    "escapes": (NAMED[:-1] + r"\u0041" * 170_000 + '"}').encode(),
    "controls": (NAMED[:-1] + r"\u0001" * 170_000 + '"}').encode(),
    "surrogates": (NAMED[:-1] + r"\ud83d\ude00" * 85_000 + '"}').encode(),
    "quotes": (NAMED[:-1] + r"\"" * 500_000 + '"}').encode(),
    "texts": filled('{"task":"patterned","texts":[', '"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa!"', "]}"),
    "text and pattern": filled('{"task":"patterned","texts":["', "a-", '!"]}'),
    "empty texts": filled('{"task":"patterned","texts":[', '""', "]}", 290_000),
    "huge integer": b'{"task":"numbers","values":[' + b"9" * 1_000_000 + b"]}",
    "huge fraction": b'{"task":"numbers","values":[0.' + b"9" * 1_000_000 + b"]}",
    "huge exponent": b'{"task":"numbers","values":[1e' + b"9" * 1_000_000 + b"]}",
    "integers of 4,000 digits": filled('{"task":"numbers","values":[', "9" * 4000, "]}"),
    "not UTF-8": (NAMED[:-1]).encode() + b"\xff" * 1_000_000 + b'"}',
    "not UTF-8 at the end": b'{"task":"tree","value":[' + b"1," * 49_000 + b'"\xff"]}',
    "NUL": b"\x00" * BODY_MAX_BYTES,
    "white space": b" " * (BODY_MAX_BYTES - 2000) + b'{"task":"first","name":"a"}',
    "commas": b"," * BODY_MAX_BYTES,
    "quotes alone": b'"' * BODY_MAX_BYTES,
    "backslashes": b'"' + b"\\" * (BODY_MAX_BYTES - 1),
}
# The bodies, one of each kind, that `make test` also sends in a batch.
IN_BATCHES = ("unknown keys", "union", "deep tree", "unclosed", "texts", "huge integer", "not UTF-8")
# Bodies that are valid or invalid only as a batch.
BATCHES = {
    "of nothing": filled('{"tasks":[', "1", "]}", 2_000),
    "of too many": filled('{"tasks":[', "1", "]}"),
    "of tasks": filled('{"tasks":[', '{"task":"first","name":"n#"}', "]}", 28_000),
    "of large tasks": filled('{"tasks":[', '{"task":"tree","value":"' + "a" * 1000 + '"}', "]}"),
    "of controls": filled('{"tasks":[', '{"task":"tree","value":"' + r"\u0001" * 160 + '"}', "]}", 1_000_000),
    "of unknown keys": filled('{"tasks":[', '{"task":"first","a":1,"b":2,"c":3,"d":4,"e":5,"f":6}', "]}", 56_000),
    "of long unknown keys": filled('{"tasks":[', '{"task":"first","' + "k" * 900 + '":1}', "]}", 900_000),
    "of many errors": filled('{"tasks":[', '{"task":"union5","values":[' + "1," * 60 + "1]}", "]}", 150_000),
    "with unknown keys": filled('{"tasks":[{"task":"first","name":"a"}],', '"k#":1', "}", 900_000),
    "with many arrays": filled("{", '"tasks":[{"task":"first","name":"a"}]', "}"),
    "with an empty array": b'{"tasks":[]}',
}


def post(api: Api, path: str, body: bytes, *, chunked: bool, key: str | None = None) -> httpx.Response:
    """Post, and repeat the post while other work keeps the parser's process busy."""
    end_s = time.monotonic() + DEADLINE_S
    while True:
        response = post_once(api, path, body, chunked=chunked, key=key)
        if "(parser-busy)" not in response.text or time.monotonic() > end_s:
            return response


def post_once(api: Api, path: str, body: bytes, *, chunked: bool, key: str | None = None) -> httpx.Response:
    headers = JSON | ({"Idempotency-Key": key} if key else {})
    return api.client.post(path, content=iter([body]) if chunked else body, headers=headers)


def assert_short_step(api: Api, response: httpx.Response) -> None:
    assert response.status_code in {202, 400, 413, 422}, response.text[:500]
    assert api.metric("test_longest_step_seconds") < STEP_MAX_S


@pytest.mark.parametrize("sent", ["sized", *thorough("chunked")])
@pytest.mark.parametrize("name", BODIES)
def test_step_is_bounded_for_each_body(api: Api, name: str, sent: str) -> None:
    for key in (None, f"{name}-{sent}".replace(" ", "-")):
        assert_short_step(api, post(api, "/tasks", BODIES[name], chunked=sent == "chunked", key=key))


@pytest.mark.parametrize("name", [*IN_BATCHES, *thorough(*(name for name in BODIES if name not in IN_BATCHES))])
def test_step_is_bounded_for_each_body_in_a_batch(api: Api, name: str) -> None:
    body = BODIES[name]
    once = b'{"tasks":[' + body + b"]}"
    often = b'{"tasks":[' + b",".join([body] * min(1000, max(1, BODY_MAX_BYTES // (len(body) + 1)))) + b"]}"
    for batch in (body, once, often[:BODY_MAX_BYTES]):
        assert_short_step(api, post(api, "/tasks/batch", batch, chunked=False))


@pytest.mark.parametrize("name", BATCHES)
def test_step_is_bounded_for_each_batch(api: Api, name: str) -> None:
    for key in (None, name.replace(" ", "-"), name.replace(" ", "-")):  # the third answer comes from the record
        assert_short_step(api, post(api, "/tasks/batch", BATCHES[name], chunked=False, key=key))


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(["tree", "union5", "numbers", "patterned", "first"]), VALUES, st.integers(1, 2000))
def test_step_is_bounded_for_generated_bodies(api: Api, task: str, value: object, times: int) -> None:
    part = json.dumps(value)
    values = ",".join([part] * min(times, 900_000 // len(part)))
    body = f'{{"task":"{task}","value":{part},"values":[{values}]}}'.encode()
    assert_short_step(api, post(api, "/tasks", body, chunked=False))
    assert_short_step(api, post(api, "/tasks/batch", b'{"tasks":[' + body + b"]}", chunked=False))


def test_other_clients_are_answered_while_heavy_bodies_are_parsed(api: Api) -> None:
    """Each heavy body takes the parser's process about a second; another client must not wait for even one of them."""
    heavy = partial(post_once, api, "/tasks", BODIES["union"], chunked=False)
    heavy_s = post(api, "/tasks", BODIES["union"], chunked=False).elapsed.total_seconds()
    with ThreadPoolExecutor(24) as clients:
        parsing = [clients.submit(heavy) for _ in range(24)]
        took = []
        while not all(one.done() for one in parsing):
            response = api.client.post("/tasks", content=NAMED + "}", headers=JSON)
            assert response.status_code == 202
            took.append(response.elapsed.total_seconds())
    assert 503 in {one.result().status_code for one in parsing} <= {422, 503}
    assert sorted(took)[len(took) // 2] < max(0.25, heavy_s / 4)
    assert api.metric("test_longest_step_seconds") < STEP_MAX_S


def test_maximum_nesting_is_equal_for_post_batch_and_worker(api: Api) -> None:
    deepest, too_deep = BODIES["deepest"], BODIES["too deep"]
    for body, status in ((deepest, 202), (too_deep, 413)):
        for path, sent in (("/tasks", body), ("/tasks/batch", b'{"tasks":[' + body + b"]}")):
            response = post(api, path, sent, chunked=False)
            assert (response.status_code, response.json().get("type")) in {
                (202, None),
                (413, "urn:sluice:problem:too-complex"),
            }
            assert response.status_code == status
    assert read_input(Tree, deepest.decode()).task == "tree"


REQUEST = b"GET /livez HTTP/1.1\r\nHost: a\r\n\r\n"
STREAMS = {
    "requests in a row": REQUEST * 9_000,
    "smallest requests in a row": b"GET / HTTP/1.1\r\n\r\n" * 14_000,
    "requests to upgrade in a row": b"GET / HTTP/1.1\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\n" * 4_000,
    "short headers without an end": b"GET / HTTP/1.1\r\n" + b"a:b\r\n" * 200_000,
    "header without an end": b"GET / HTTP/1.1\r\na:" + b"b" * 1_000_000,
    "target without an end": b"GET /" + b"a" * 1_000_000,
    "short chunks": b"POST /tasks HTTP/1.1\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
    + b"1\r\n[\r\n" * 40_000,
}


@pytest.mark.parametrize("name", STREAMS)
def test_step_is_bounded_for_streams_of_requests(api: Api, name: str) -> None:
    address = api.client.base_url
    with socket.create_connection((address.host, address.port or 80), timeout=20) as connection, suppress(OSError):
        connection.sendall(STREAMS[name])
        connection.shutdown(socket.SHUT_WR)
        while connection.recv(65536):
            pass
    assert api.metric("test_longest_step_seconds") < STEP_MAX_S


def test_pipelined_requests_are_all_answered_in_order(api: Api) -> None:
    """More requests than one step parses, and bodies among them that arrive in parts."""
    key = api.client.headers["Authorization"].encode()
    body = b'{"task":"tree","value":"' + b"a" * 200_000 + b'"}'
    post_ = b"POST /tasks HTTP/1.1\r\nHost: a\r\nAuthorization: %b\r\nContent-Type: application/json\r\n" % key
    post_ += b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
    last = b"GET /nothing HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
    address = api.client.base_url
    with socket.create_connection((address.host, address.port or 80), timeout=20) as connection:
        sending = ThreadPoolExecutor(1).submit(connection.sendall, (REQUEST * 1000 + post_) * 3 + last)
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
        sending.result()
    statuses = re.findall(rb"HTTP/1\.1 (\d{3}) ", answer)
    assert statuses == ([b"200"] * 1000 + [b"202"]) * 3 + [b"404"]
