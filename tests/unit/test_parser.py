"""The process that parses heavy bodies: its results, its end, and the order of waiting requests."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Literal, Self

import psutil
import pytest
from pydantic import model_validator

from apps.api.body import BATCH_ERRORS_MAX, BATCH_MAX, ERRORS_MAX, LISTED_MAX
from apps.api.errors import Problem
from apps.api.parser import BATCHES_MAX, BATCHES_READ, WAITING_MAX, Batches, Parser
from apps.contract.message import Payload
from apps.contract.tasks import Input, TaskSpec, registry
from tests.harness.simple_tasks import TASKS, Output

pytestmark = pytest.mark.anyio

GOOD = b'{"task":"first","name":"a"}'


class Act(Input):
    """Acts as `how` says while it is validated."""

    task: Literal["act"]
    how: str
    path: str = ""

    @model_validator(mode="after")
    def _act(self) -> Self:
        if self.how == "sleep":
            time.sleep(0.2)
        if self.how == "spin":
            while True:
                pass
        if self.how == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.how == "die once" and not Path(self.path).exists():
            Path(self.path).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return self


SPEC = TaskSpec(name="celery:act", input=Act, output=Output, hard_limit_s=9)


@pytest.fixture
async def parser() -> AsyncIterator[Parser]:
    parser = Parser(registry(*TASKS.values(), SPEC))
    yield parser
    parser.close()
    assert not psutil.Process().children()


def act(how: str, path: str = "") -> bytes:
    return f'{{"task":"act","how":"{how}","path":"{path}"}}'.encode()


async def problem(parser: Parser, body: bytes, owner: str = "a") -> str:
    """Return the task of a body, or the kind of its problem."""
    try:
        return (await parser.parse_input(owner, body)).task
    except Problem as found:
        return f"{found.status} {found.kind}"


async def test_results_equal_those_of_parsing_in_the_event_loop(parser: Parser) -> None:
    text = '{ "task":"first", "name": "\\u0041é" }'
    assert await parser.parse_input("a", text.encode()) == Payload("first", text)
    first, second = await parser.parse_batch("a", f'{{"tasks":[{text}, 1]}}'.encode())
    assert first == Payload("first", text)
    assert isinstance(second, Problem)
    assert second.kind == "invalid"


@pytest.mark.parametrize(
    ("body", "kind"),
    [(b"{", "400 malformed"), (b"[]", "422 invalid"), (b"[" * 300, "413 too-complex"), (b"\xff", "400 malformed")],
)
async def test_problem_of_a_body_is_returned(parser: Parser, body: bytes, kind: str) -> None:
    assert await problem(parser, body) == kind
    assert await problem(parser, GOOD) == "first"


async def test_validator_that_never_returns_is_killed(parser: Parser, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("apps.api.parser_process.CPU_MAX_S", 0.2)
    assert await problem(parser, act("spin")) == "413 too-complex"
    assert await problem(parser, GOOD) == "first"


async def test_body_is_parsed_again_after_its_process_was_killed_once(parser: Parser, tmp_path: Path) -> None:
    assert await problem(parser, act("die once", str(tmp_path / "died"))) == "act"
    assert await problem(parser, act("die")) == "422 invalid"
    assert await problem(parser, GOOD) == "first"


async def test_deadline_counts_from_the_request(parser: Parser, monkeypatch: pytest.MonkeyPatch) -> None:
    assert await problem(parser, GOOD) == "first"  # starts the process
    with monkeypatch.context() as patch:
        patch.setattr("apps.api.parser.DEADLINE_S", 0.3)
        started_s = time.monotonic()
        asked = [problem(parser, act("sleep"), str(number)) for number in range(30)]
        assert (await asyncio.gather(*asked)).count("503 refused") >= 28
        assert time.monotonic() - started_s < 3  # 30 validations of 0.2 s take 6 s
    assert parser.waiting == 0
    assert await problem(parser, GOOD) == "first"


async def test_number_of_waiting_bodies_per_client_is_bounded(parser: Parser) -> None:
    asked = [problem(parser, act("sleep")) for _ in range(WAITING_MAX + 3)]
    found = await asyncio.gather(*asked)
    assert found.count("503 refused") == 2
    assert found[-2:] == ["503 refused"] * 2  # the last two


async def test_clients_are_served_in_turn(parser: Parser) -> None:
    order: list[str] = []

    async def ask(owner: str) -> None:
        await problem(parser, act("sleep"), owner)
        order.append(owner)

    await asyncio.gather(*map(ask, ["greedy"] * 6 + ["other"]))
    assert "other" in order[:3]


async def test_cancelled_request_gives_up_its_place(parser: Parser) -> None:
    asked = [asyncio.create_task(problem(parser, act("sleep"))) for _ in range(3)]
    await asyncio.sleep(0)
    for one in asked[:2]:
        one.cancel()
    assert await asked[2] == "act"
    assert await problem(parser, GOOD) == "first"


async def test_waiting_batches_of_a_client_are_bounded_in_number_and_time(
    parser: Parser, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert await problem(parser, GOOD) == "first"  # starts the process
    batches = Batches()

    async def ask() -> str:
        try:
            async with batches.turn():
                return await problem(parser, act("sleep"))
        except Problem as found:
            return f"{found.status} {found.kind}"

    with monkeypatch.context() as patch:
        patch.setattr("apps.api.parser.DEADLINE_S", 0.5)
        started_s = time.monotonic()
        found = await asyncio.gather(*(ask() for _ in range(BATCHES_MAX + 2)))
        # up to 0.5 s until a batch is read, and 0.5 s until it is parsed; all batches together would take 13 s
        assert time.monotonic() - started_s < 5
        assert found[0] == "act"
        assert found.count("503 refused") >= len(found) - 5  # each batch takes 0.2 s
    assert await ask() == "act"


async def test_only_few_batches_of_a_client_are_read_at_the_same_time() -> None:
    batches, may_end = Batches(), asyncio.Event()
    reading: list[int] = []

    async def read(number: int) -> None:
        async with batches.turn():
            reading.append(number)
            await may_end.wait()

    reads = [asyncio.create_task(read(number)) for number in range(2 * BATCHES_READ)]
    await asyncio.sleep(0)
    reads[0].cancel()  # a reading client gives up its turn, and a waiting one its place
    reads[BATCHES_READ].cancel()
    await asyncio.wait(reads[: BATCHES_READ + 1], return_when=asyncio.FIRST_COMPLETED)
    await asyncio.sleep(0)
    assert reading == [*range(BATCHES_READ), BATCHES_READ + 1]
    may_end.set()
    await asyncio.gather(*reads, return_exceptions=True)
    assert reading == [*range(BATCHES_READ), *range(BATCHES_READ + 1, 2 * BATCHES_READ)]


async def test_batch_beyond_the_maximum_is_refused_immediately() -> None:
    batches = Batches()

    async def hold() -> None:
        async with batches.turn():
            await asyncio.Event().wait()

    held = [asyncio.create_task(hold()) for _ in range(BATCHES_MAX)]
    await asyncio.sleep(0)
    with pytest.raises(Problem) as found:
        await asyncio.wait_for(hold(), 1)
    assert (found.value.status, found.value.kind) == (503, "refused")
    for one in held:
        one.cancel()


async def test_number_of_errors_of_a_batch_is_bounded(parser: Parser) -> None:
    one = b'{"task":"first",' + b",".join(b'"k%d":1' % index for index in range(20)) + b"}"
    problems = await parser.parse_batch("a", b'{"tasks":[' + b",".join([one] * BATCH_MAX) + b"]}")
    counts = [len(each.members["errors"]) for each in problems if isinstance(each, Problem)]
    assert counts == [ERRORS_MAX] * (BATCH_ERRORS_MAX // ERRORS_MAX) + [1] * (
        BATCH_MAX - BATCH_ERRORS_MAX // ERRORS_MAX
    )


async def test_too_many_errors_are_counted_and_not_listed(parser: Parser) -> None:
    body = GOOD[:-1] + b"".join(b',"k%d":1' % index for index in range(LISTED_MAX + 1)) + b"}"
    with pytest.raises(Problem) as found:
        await parser.parse_input("a", body)
    assert found.value.members["errors"][0]["msg"] == f"it has {LISTED_MAX + 1} errors, too many to list"


PARENT = f"""
import asyncio
from apps.api.parser import Parser
from tests.harness.simple_tasks import TASKS

async def main():
    await Parser(TASKS).parse_input("a", {GOOD!r})
    print("ready", flush=True)
    await asyncio.sleep(60)

asyncio.run(main())
"""


def test_parser_process_ends_with_its_parent() -> None:
    with subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        parent.stdout.readline()
        (child,) = psutil.Process(parent.pid).children()
        parent.kill()
    assert psutil.wait_procs([child], timeout=10)[0]
