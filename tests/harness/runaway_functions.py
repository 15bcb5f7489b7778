"""Tables for tests: ways in which a task's function never ends, or uses other processes."""

import asyncio
import collections
import itertools
import multiprocessing
import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from functools import cache, partial
from multiprocessing.shared_memory import SharedMemory
from pathlib import Path
from typing import Any, NoReturn


def _consume_for_ever() -> NoReturn:  # type: ignore[misc]
    """Call C code that never returns, holds the GIL and handles no signals."""
    collections.deque(itertools.repeat(0), maxlen=0)


def _wait_for_ever() -> NoReturn:
    while True:
        with suppress(BaseException):
            time.sleep(60)


def _block_signals() -> NoReturn:
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    _wait_for_ever()


def _ignore_signals() -> NoReturn:
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP, signal.SIGCHLD}:
        signal.signal(number, signal.SIG_IGN)
    _wait_for_ever()


def _use_the_alarm() -> NoReturn:
    signal.signal(signal.SIGALRM, lambda *_: None)
    signal.setitimer(signal.ITIMER_REAL, 0.1, 0.1)
    signal.alarm(0)
    _wait_for_ever()


def _hold_the_gil_in_a_thread() -> None:
    threading.Thread(target=_consume_for_ever, daemon=True).start()


RUNAWAYS: dict[str, Callable[[], Any]] = {
    "C code": _consume_for_ever,
    "swallowed limits": _wait_for_ever,
    "blocked signals": _block_signals,
    "ignored signals": _ignore_signals,
    "own alarm": _use_the_alarm,
    "thread in C code": _hold_the_gil_in_a_thread,
}
"""Each function never ends by itself."""


def started(folder: Path, name: str) -> list[int]:
    """Return the ids of the processes that the task of this name has started."""
    file = folder / f"started-{name}"
    return [int(line) for line in file.read_text().split()] if file.exists() else []


def _stay(file: str) -> None:
    """Append the process id to the file, and sleep for longer than any test."""
    with Path(file).open("a") as notes:
        notes.write(f"{os.getpid()}\n")
    time.sleep(600)


def _program(file: str) -> list[str]:
    return ["sh", "-c", f"echo $$ >> {shlex.quote(file)}; exec sleep 600"]


def _shell(how: str) -> Callable[[str], Any]:
    def start(file: str) -> None:
        subprocess.run(["sh", "-c", how.replace("PROGRAM", shlex.join(_program(file)))], check=True)

    return start


def _subprocess(file: str, **options: Any) -> None:
    _kept.append(subprocess.Popen(_program(file), **options))


def _double_fork(file: str) -> None:
    """Start a daemon in Python: no exec, another session, another parent."""
    if os.fork():
        os.wait()
        return
    os.setsid()
    if os.fork() == 0:
        with suppress(BaseException):
            _stay(file)
    os._exit(0)


def _respawn(file: str) -> None:
    """Start a process that replaces its child whenever the child has ended."""
    if os.fork() == 0:
        while True:
            child = os.fork()
            if child == 0:
                _stay(file)
            os.waitpid(child, 0)


def _in_process(method: str, file: str) -> None:
    process = _context(method).Process(target=_stay, args=(file,))
    process.start()


def _in_executor(method: str, file: str) -> None:
    executor = ProcessPoolExecutor(2, mp_context=_context(method))
    executor.submit(_stay, file)
    _kept.append(executor)


def _in_asyncio(file: str) -> None:
    async def start() -> None:
        _kept.append(await asyncio.create_subprocess_exec(*_program(file), start_new_session=True))

    asyncio.run(start())


_kept: list[Any] = []

METHODS = ("fork", "spawn", "forkserver")
STARTS: dict[str, Callable[[str], Any]] = {
    "subprocess": _subprocess,
    "session": partial(_subprocess, start_new_session=True),
    "grandchild": lambda file: _kept.append(subprocess.Popen(["sh", "-c", f"{shlex.join(_program(file))}; true"])),
    "background": _shell("PROGRAM &"),
    "setsid": _shell("setsid PROGRAM &"),
    "empty environment": _shell("setsid env -i PROGRAM &"),
    "double fork": _double_fork,
    "respawn": _respawn,
    "asyncio": _in_asyncio,
    **{f"process by {method}": partial(_in_process, method) for method in METHODS},
    **{f"executor by {method}": partial(_in_executor, method) for method in METHODS},
}
"""Each function starts a process that appends its id to this file and keeps running."""


def _square(number: int) -> int:
    return number * number


def _put(queue: Any, number: int) -> None:
    queue.put(number)


def _context(method: str | None) -> Any:
    return multiprocessing.get_context(method)


def _process(method: str | None) -> int:
    queue = _context(method).Queue()
    process = _context(method).Process(target=_put, args=(queue, 9))
    process.start()
    number: int = queue.get(timeout=60)
    process.join()
    return number


def _pool(method: str | None) -> int:
    with _context(method).Pool(2) as pool:  # leaving the block ends the processes by SIGTERM
        squares: list[int] = pool.map(_square, [1, 2, 3])
    pool.join()
    return squares[-1]


def _executor(method: str | None) -> int:
    with ProcessPoolExecutor(2, mp_context=_context(method)) as executor:
        return list(executor.map(_square, [1, 2, 3]))[-1]


def _manager(method: str | None) -> int:
    with _context(method).Manager() as manager:
        numbers = manager.list([9])
        return int(numbers[0])


@cache
def _kept_executor(method: str | None) -> ProcessPoolExecutor:
    return ProcessPoolExecutor(2, mp_context=_context(method))


def _reused(method: str | None) -> int:
    """Reuse the processes of the first call in later calls, as joblib does."""
    return _kept_executor(method).submit(_square, 3).result(60)


async def _echo() -> int:
    process = await asyncio.create_subprocess_exec("echo", "9", stdout=asyncio.subprocess.PIPE)
    output, _ = await process.communicate()
    return int(output)


async def _concurrent() -> int:
    return sum(await asyncio.gather(asyncio.to_thread(_square, 2), asyncio.sleep(0.01, 5)))


def _helpers(method: str | None) -> Iterator[tuple[str, Callable[[], int]]]:
    for name, do in {
        "process": _process, "pool": _pool, "executor": _executor, "manager": _manager, "reused executor": _reused,
    }.items():  # fmt: skip
        yield f"{name} by {method or 'default'}", partial(do, method)


HELPERS: dict[str, Callable[[], int]] = {
    **{name: do for method in (None, *METHODS) for name, do in _helpers(method)},
    "subprocess": lambda: int(subprocess.run(["echo", "9"], check=True, capture_output=True).stdout),
    "python": lambda: int(subprocess.run([sys.executable, "-c", "print(9)"], check=True, capture_output=True).stdout),
    "asyncio": lambda: asyncio.run(_concurrent()),
    "asyncio and subprocess": lambda: asyncio.run(_echo()),
}
"""Each function returns 9, with the help of other processes or threads."""


def share_memory(name: str) -> None:
    """Create shared memory of this name, and leave its removal to the resource tracker."""
    _kept.append(SharedMemory(name, create=True, size=1024))
