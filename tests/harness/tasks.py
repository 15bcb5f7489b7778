"""Test tasks, many of which misbehave on request. Most note each run as a line in the effects file."""

import asyncio
import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from apps.contract.tasks import TaskSpec, registry
from apps.worker.limits import Cancelled
from tests.harness.failing_functions import CALLS, CHANGES, DEATHS, ENDINGS
from tests.harness.runaway_functions import HELPERS, RUNAWAYS, STARTS, share_memory
from tests.harness.simple_tasks import TASKS, WORK_QUEUE, NamedInput, Output, first, second
from tests.harness.task_functions import works

EFFECTS = "TEST_EFFECTS_FILE"

_leak: list[bytes] = []


class Recorded1(NamedInput):
    """Input of the messages in tests/integration/earlier_0ddeda5.json, with the task names of that commit."""

    task: Literal["task_1"]


class Recorded2(NamedInput):
    """Input of the same messages, for the second task."""

    task: Literal["task_2"]


class Sleep(NamedInput):
    task: Literal["sleep"]
    seconds: Annotated[float, Field(ge=0)] = 0.0


class Held(NamedInput):
    task: Literal["held"]


class Deaf(NamedInput):
    """Like `Held`, but the process ignores SIGTERM from then on."""

    task: Literal["deaf"]


class HeldElsewhere(NamedInput):
    task: Literal["held_elsewhere"]


class SleepElsewhere(NamedInput):
    task: Literal["sleep_elsewhere"]
    seconds: Annotated[float, Field(ge=0)] = 0.0


class Fail(NamedInput):
    task: Literal["fail"]


class KillChild(NamedInput):
    task: Literal["kill_child"]
    times: int = 1_000_000


class Flaky(NamedInput):
    task: Literal["flaky"]
    failures: int


class Stuck(NamedInput):
    task: Literal["stuck"]


class Grow(NamedInput):
    task: Literal["grow"]
    mib: int


class Brief(NamedInput):
    task: Literal["brief"]


class Odd(NamedInput):
    task: Literal["odd"]


class Hungry(NamedInput):
    task: Literal["hungry"]


class Leave(NamedInput):
    task: Literal["leave"]


class Count(NamedInput):
    task: Literal["count"]
    digits: int


class Counted(Output):
    number: int


class OddError(Exception):
    """Cannot be unpickled: its arguments are not those of its constructor."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(f"{code}: {text}")


class Stubborn(NamedInput):
    task: Literal["stubborn"]


class Elsewhere(NamedInput):
    task: Literal["elsewhere"]


class End(NamedInput):
    """Ends in the way that the table `ENDINGS`, `CHANGES` or `DEATHS` has under the name `how`."""

    task: Literal["end"]
    how: str


class Call(NamedInput):
    """Calls Celery's own API in the way that the table `CALLS` has under the name `how`."""

    task: Literal["call"]
    how: str


class Validated(NamedInput):
    """Valid in the API and invalid in the worker, as with an impure validator."""

    task: Literal["validated"]

    @model_validator(mode="after")
    def _not_here(self) -> Self:
        if "celery" in sys.argv[0]:
            raise ValueError("not in a worker")
        return self


class Limited(NamedInput):
    """Runs longer than its soft limit."""

    task: Literal["limited"]


class Unread(NamedInput):
    """Raises an error whose `__str__` never returns."""

    task: Literal["unread"]


class Unclean(NamedInput):
    """Fails in its cleanup the first time that it runs."""

    task: Literal["unclean"]


class CancelledTask(NamedInput):
    """Waits for its cancellation, and passes Cancelled on as `how` says."""

    task: Literal["cancelled"]
    how: Literal["caught", "group", "cleanup"]


class Runaway(NamedInput):
    """Never ends, in the way that the table `RUNAWAYS` has under the name `how`. Soft limit 1 s, hard limit 2 s."""

    task: Literal["runaway"]
    how: str


class Endless(NamedInput):
    """Like `Runaway`, with limits that no test reaches."""

    task: Literal["endless"]
    how: str


class Start(NamedInput):
    """Starts a process in the way that the table `STARTS` has under the name `how`, and continues as `then` says."""

    task: Literal["start"]
    how: str
    then: Literal["return", "fail", "wait", "swallow", "die", "communicate"] = "wait"


class StartHard(Start):
    """Like `Start`, with a hard limit of 6 s: a spawned process needs a second or two until it notes its id."""

    task: Literal["start_hard"]  # type: ignore[assignment]


class StartSoft(Start):
    """Like `Start`, with a soft limit of 4 s."""

    task: Literal["start_soft"]  # type: ignore[assignment]


class Helped(NamedInput):
    """Uses other processes, in the way that the table `HELPERS` has under the name `how`."""

    task: Literal["helped"]
    how: str


class EndlessError(Exception):
    def __str__(self) -> str:  # noqa: PLE0307 - never returning is intended
        while True:
            time.sleep(60)


def _spec(name: str, input_: type[NamedInput], hard_limit_s: int = 120, soft_limit_s: int | None = None) -> TaskSpec:
    return TaskSpec(
        name=name,
        input=input_,
        output=Output,
        hard_limit_s=hard_limit_s,
        soft_limit_s=soft_limit_s,
    )


class Unreadable(NamedInput):
    """Puts text that cannot be encoded as UTF-8 into its exception, result or log; `times` makes it long."""

    task: Literal["unreadable"]
    where: Literal["message", "type", "result", "key", "bytes", "log"]
    times: int = 1


class Produce(NamedInput):
    """Returns a result of `size_bytes`."""

    task: Literal["produce"]
    size_bytes: int


class Excess(NamedInput):
    """Like `Produce`, with the default limit on the result; retried on any error."""

    task: Literal["excess"]
    size_bytes: int


class Produced(Output):
    data: Any


TEST_TASKS = registry(
    *TASKS.values(),
    _spec(f"{WORK_QUEUE}:task_1", Recorded1),
    _spec(f"{WORK_QUEUE}:task_2", Recorded2),
    _spec(f"{WORK_QUEUE}:sleep", Sleep),
    _spec(f"{WORK_QUEUE}:held", Held),
    _spec(f"{WORK_QUEUE}:deaf", Deaf),
    _spec(f"{WORK_QUEUE}:fail", Fail),
    _spec(f"{WORK_QUEUE}:kill_child", KillChild),
    _spec(f"{WORK_QUEUE}:flaky", Flaky),
    _spec(f"{WORK_QUEUE}:stuck", Stuck, hard_limit_s=3),
    _spec(f"{WORK_QUEUE}:grow", Grow),
    _spec(f"{WORK_QUEUE}:brief", Brief, hard_limit_s=3),
    _spec(f"{WORK_QUEUE}:odd", Odd),
    _spec(f"{WORK_QUEUE}:hungry", Hungry),
    _spec(f"{WORK_QUEUE}:leave", Leave),
    _spec(f"{WORK_QUEUE}:stubborn", Stubborn),
    TaskSpec(name=f"{WORK_QUEUE}:count", input=Count, output=Counted, hard_limit_s=120),
    _spec("celery:elsewhere", Elsewhere),
    _spec("celery:held_elsewhere", HeldElsewhere),
    _spec("celery:sleep_elsewhere", SleepElsewhere),
    _spec(f"{WORK_QUEUE}:end", End),
    _spec(f"{WORK_QUEUE}:call", Call),
    _spec(f"{WORK_QUEUE}:validated", Validated),
    _spec(f"{WORK_QUEUE}:limited", Limited, soft_limit_s=1),
    _spec(f"{WORK_QUEUE}:unclean", Unclean),
    _spec(f"{WORK_QUEUE}:cancelled", CancelledTask),
    _spec(f"{WORK_QUEUE}:unread", Unread, hard_limit_s=3),
    _spec(f"{WORK_QUEUE}:runaway", Runaway, hard_limit_s=2, soft_limit_s=1),
    _spec(f"{WORK_QUEUE}:endless", Endless),
    _spec(f"{WORK_QUEUE}:start", Start),
    _spec(f"{WORK_QUEUE}:start_hard", StartHard, hard_limit_s=6),
    _spec(f"{WORK_QUEUE}:start_soft", StartSoft, soft_limit_s=4),
    TaskSpec(name=f"{WORK_QUEUE}:helped", input=Helped, output=Counted, hard_limit_s=120),
    TaskSpec(name=f"{WORK_QUEUE}:unreadable", input=Unreadable, output=Produced, hard_limit_s=120),
    TaskSpec(
        name=f"{WORK_QUEUE}:produce",
        input=Produce,
        output=Produced,
        hard_limit_s=120,
        result_max_bytes=10 * 1024 * 1024,
    ),
    TaskSpec(name=f"{WORK_QUEUE}:excess", input=Excess, output=Produced, hard_limit_s=120),
)


def effect(name: str, what: str) -> int:
    """Append a step of a task to the effects file; returns how often the step was noted before under this name."""
    path = Path(os.environ[EFFECTS])
    before = path.read_text().splitlines().count(f"{name} {what}") if path.exists() else 0
    with path.open("a") as file:
        file.write(f"{name} {what}\n")
    return before


task_1, task_2 = first, second


def sleep(task: Sleep) -> Output:
    effect(task.name, "begun")
    time.sleep(task.seconds)
    effect(task.name, "done")
    return Output(name_task=task.name, state="done")


def release_file(effects: Path, name: str) -> Path:
    """Return the path of the file whose existence lets the held task of this name finish."""
    return effects.with_name(f"released-{name}")


def held(task: Held) -> Output:
    effect(task.name, "begun")
    while not release_file(Path(os.environ[EFFECTS]), task.name).exists():
        time.sleep(0.02)
    effect(task.name, "done")
    return Output(name_task=task.name, state="done")


def deaf(task: Deaf) -> Output:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    return held(Held(task="held", name=task.name))


def held_elsewhere(task: HeldElsewhere) -> Output:
    return held(Held(task="held", name=task.name))


def sleep_elsewhere(task: SleepElsewhere) -> Output:
    return sleep(Sleep(task="sleep", name=task.name, seconds=task.seconds))


def fail(task: Fail) -> Output:
    raise ValueError(f"{task.name} is not acceptable")


def kill_child(task: KillChild) -> Output:
    if effect(task.name, "begun") < task.times:
        os.kill(os.getpid(), signal.SIGKILL)
    return Output(name_task=task.name, state="done")


def flaky(task: Flaky) -> Output:
    if effect(task.name, "begun") < task.failures:
        raise ConnectionError("not yet")
    return Output(name_task=task.name, state="done")


def stuck(task: Stuck) -> Output:
    effect(task.name, "begun")
    while True:
        time.sleep(60)


def grow(task: Grow) -> Output:
    _leak.append(bytes(range(256)) * (task.mib * 4096))
    return Output(name_task=task.name, state="done")


def brief(task: Brief) -> Output:
    effect(task.name, "done")
    return Output(name_task=task.name, state="done")


def odd(_: Odd) -> Output:
    raise OddError(404, "not there")


def count(task: Count) -> Counted:
    return Counted(name_task=task.name, state="done", number=10 ** (task.digits - 1))


def hungry(_: Hungry) -> Output:
    raise MemoryError("no more")


def leave(task: Leave) -> Output:
    effect(task.name, "begun")
    sys.exit(3)


def stubborn(task: Stubborn) -> Output:
    effect(task.name, "begun")
    while True:
        try:
            time.sleep(60)
        except BaseException:  # noqa: BLE001 - ignoring every limit is intended
            effect(task.name, "interrupted")


def elsewhere(task: Elsewhere) -> Output:
    return Output(name_task=task.name, state="done")


def end(task: End) -> Any:
    effect(task.name, "begun")
    do = CHANGES.get(task.how) or DEATHS.get(task.how) or ENDINGS[task.how].do
    return do()


def call(task: Call) -> Any:
    effect(task.name, "begun")
    return CALLS[task.how]()


def validated(task: Validated) -> Output:
    return Output(name_task=task.name, state="done")


def limited(task: Limited) -> Output:
    effect(task.name, "begun")
    time.sleep(60)
    return Output(name_task=task.name, state="done")


def unread(task: Unread) -> Output:
    effect(task.name, "begun")
    raise EndlessError


def runaway(task: Runaway | Endless) -> Output:
    effect(task.name, "begun")
    RUNAWAYS[task.how]()
    time.sleep(0)  # lets the thread take the GIL
    return Output(name_task=task.name, state="done")


endless = runaway


def start(task: Start) -> Output:
    if task.how == "shared memory":
        share_memory(task.name)
    else:
        STARTS[task.how](str(Path(os.environ[EFFECTS]).with_name(f"started-{task.name}")))
    effect(task.name, "begun")
    match task.then:
        case "fail":
            raise ValueError(task.name)
        case "wait":
            time.sleep(60)
        case "swallow":
            RUNAWAYS["swallowed limits"]()
        case "die":
            os.kill(os.getpid(), signal.SIGSEGV)
        case "communicate":
            with subprocess.Popen(["sleep", "600"]) as program:
                program.communicate()
    return Output(name_task=task.name, state="done")


start_hard = start_soft = start


def helped(task: Helped) -> Counted:
    return Counted(name_task=task.name, state="done", number=HELPERS[task.how]())


async def _spin() -> None:
    while True:
        for _ in range(100_000):  # the signal should interrupt this code, not the event loop
            pass
        await asyncio.sleep(0)


async def _spinning_group() -> None:
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(_spin())


def cancelled(task: CancelledTask) -> Output:
    effect(task.name, "begun")
    if task.how == "group":
        asyncio.run(_spinning_group())
    try:
        time.sleep(60)
    except Cancelled:
        if task.how == "caught":
            raise Cancelled from None
        raise
    return Output(name_task=task.name, state="done")


def unclean(task: Unclean) -> Output:
    if effect(task.name, "begun") == 0:
        try:
            time.sleep(60)
        finally:
            raise ValueError("the connection is closed already")
    return Output(name_task=task.name, state="done")


def unreadable(task: Unreadable) -> Produced:
    text = "caf\udce9\x00.mp4" * task.times
    match task.where:
        case "message":
            raise ValueError(text)
        case "type":
            raise type(f"Odd\x1b{'x' * task.times}", (Exception,), {})("said")
        case "log":
            logging.getLogger("a.team").warning("%s", text, extra={"fields": {"path": text}})
    data: Any = {"result": text, "key": {text: 1}, "bytes": b"caf\xe9", "log": None}[task.where]
    return Produced(name_task=task.name, state="done", data=data)


def produce(task: Produce) -> Produced:
    without = len(Produced(name_task=task.name, state="done", data="").model_dump_json())
    return Produced(name_task=task.name, state="done", data="x" * (task.size_bytes - without))


def excess(task: Excess) -> Produced:
    effect(task.name, "begun")
    return produce(Produce(task="produce", name=task.name, size_bytes=task.size_bytes))


TEST_WORKS = works(TEST_TASKS, sys.modules[__name__], retry_on={"excess": (Exception,)})
