"""Tasks that misbehave on request, added to the project's own; each leaves a line per run in the effects file."""

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
    """Of the messages in tests/integration/earlier_0ddeda5.json, whose tasks have the names of that commit."""

    task: Literal["task_1"]


class Recorded2(NamedInput):
    """The same."""

    task: Literal["task_2"]


class Sleep(NamedInput):
    task: Literal["sleep"]
    seconds: Annotated[float, Field(ge=0)] = 0.0


class Held(NamedInput):
    task: Literal["held"]


class Deaf(NamedInput):
    """The same, in a process that ignores SIGTERM from then on."""

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
    """Cannot be pickled: its arguments are not those of its constructor."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(f"{code}: {text}")


class Stubborn(NamedInput):
    task: Literal["stubborn"]


class Elsewhere(NamedInput):
    task: Literal["elsewhere"]


class End(NamedInput):
    """Ends in the way of this name in the table `ENDINGS`."""

    task: Literal["end"]
    how: str


class Call(NamedInput):
    """Calls Celery's own API, in the way of this name in the table `CALLS`."""

    task: Literal["call"]
    how: str


class Validated(NamedInput):
    """Valid for the API, and not for the worker: as with a validator that is not pure."""

    task: Literal["validated"]

    @model_validator(mode="after")
    def _not_here(self) -> Self:
        if "celery" in sys.argv[0]:
            raise ValueError("not in a worker")
        return self


class Limited(NamedInput):
    """Has a soft limit, and does not end before it."""

    task: Literal["limited"]


class Unread(NamedInput):
    """Raises an error whose text is never ready."""

    task: Literal["unread"]


class Unclean(NamedInput):
    """Fails while it cleans up, the first time that it runs."""

    task: Literal["unclean"]


class CancelledTask(NamedInput):
    """Waits to be cancelled, and hands Cancelled on in this way."""

    task: Literal["cancelled"]
    how: Literal["caught", "group", "cleanup"]


class Runaway(NamedInput):
    """Never ends, in the way of this name in the table `RUNAWAYS`; has a soft limit of 1 s and a hard one of 2 s."""

    task: Literal["runaway"]
    how: str


class Endless(NamedInput):
    """The same with no limit that a test would meet."""

    task: Literal["endless"]
    how: str


class Start(NamedInput):
    """Starts a process, in the way of this name in the table `STARTS`, and then does this."""

    task: Literal["start"]
    how: str
    then: Literal["return", "fail", "wait", "swallow", "die", "communicate"] = "wait"


class StartHard(Start):
    """The same with a hard limit of 6 s: a process that is spawned notes itself after a second or two."""

    task: Literal["start_hard"]  # type: ignore[assignment]


class StartSoft(Start):
    """The same with a soft limit of 4 s."""

    task: Literal["start_soft"]  # type: ignore[assignment]


class Helped(NamedInput):
    """Works with other processes, in the way of this name in the table `HELPERS`."""

    task: Literal["helped"]
    how: str


class EndlessError(Exception):
    def __str__(self) -> str:  # noqa: PLE0307 - that is the point
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
    """Has text that no encoding takes, in its exception, its result or its log; `times` makes it long."""

    task: Literal["unreadable"]
    where: Literal["message", "type", "result", "key", "bytes", "log"]
    times: int = 1


class Produce(NamedInput):
    """Has a result of so many bytes."""

    task: Literal["produce"]
    size_bytes: int


class Excess(NamedInput):
    """The same, under the limits of the settings; any error of it is retried."""

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
    """Note a step of a task, atomically; answers how often that step was noted for this name before."""
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
    """The file whose existence lets the held task of this name end."""
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
        except BaseException:  # noqa: BLE001 - that is the point
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
    time.sleep(0)  # hands the GIL to a thread
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
        for _ in range(100_000):  # the signal is to find this code running, and not the loop's own
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
