"""`make profile`: the server's CPU time per accepted task, in microseconds by part of the code; build/profile.md.

py-spy samples the stack of the running server PER_S times a second. Each sample counts for one part: that of the
innermost frame whose file belongs to a part.
"""

import shutil
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from bench.__main__ import rabbitmq_version, system
from bench.load import wrk
from bench.server import ours
from ops.command import command_line

RESULT = Path("build/profile.md")
SECONDS = 10
CONNECTIONS = 64
PER_S = 500
# Text in the path of a frame's file -> its part; the first match counts. The last one is for a stack without any match.
PARTS = (
    ("apps/amqp/template.py", "the message's frames, from the template"),
    ("apps/contract/message.py", "the message: its body and publish id"),
    ("apps/amqp/", "the connection to the broker: tags, writes, acks"),
    ("apps/api/publisher.py", "the publisher: bounds, deadline, waiting"),
    ("apps/contract/ids.py", "ids"),
    ("prometheus_client/", "metrics"),
    ("apps/api/request_log.py", "request id, trace, log line"),
    ("apps/api/auth.py", "authentication"),
    ("pydantic", "validation"),
    ("apps/api/http.py", "HTTP: uvicorn, httptools, the write of the answer"),
    ("apps/api/", "the endpoint itself"),
    ("uvicorn/protocols/", "HTTP: uvicorn, httptools, the write of the answer"),
    ("", "the event loop: epoll, reads, scheduling"),
)


def main() -> None:
    """Load a server, sample its stacks, and write the table."""
    with system() as broker, ours(broker) as server:
        wrk(server, CONNECTIONS, 2)
        loader_cpu_us: list[float] = []
        loader = threading.Thread(
            target=lambda: loader_cpu_us.append(wrk(server, CONNECTIONS, SECONDS + 2).cpu_us), daemon=True
        )
        loader.start()
        stacks = broker.folder / "stacks"
        spy = shutil.which("py-spy", path=str(Path(sys.executable).parent))
        assert spy, "py-spy is missing: run `make profile`"
        options = ["--duration", str(SECONDS), "--rate", str(PER_S), "--full-filenames", "--format", "raw"]
        subprocess.run(  # noqa: S603
            [spy, "record", "--pid", str(server.pid), *options, "--output", str(stacks)],
            check=True, capture_output=True, timeout=SECONDS + 60,
        )  # fmt: skip
        loader.join()
        rows = [f"RabbitMQ {rabbitmq_version(broker)}, {CONNECTIONS} connections", ""]
        rows += table(stacks.read_text().splitlines(), loader_cpu_us[0])
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text("\n".join(rows) + "\n")
    print("\n".join(rows))


def table(stacks: Iterable[str], cpu_us: float) -> list[str]:
    """Markdown: the share of each part in the samples, and in the server's CPU time per accepted task (`cpu_us`)."""
    counts: Counter[str] = Counter()
    for line in stacks:
        stack, _, count = line.rpartition(" ")
        if "threading.py" not in stack:  # idle threads, which py-spy counts as busy
            counts[part_of(stack)] += int(count)
    total = sum(counts.values())
    rows = ["| part | share | us |", "|---|---|---|"]
    rows += [f"| {part} | {count / total:.0%} | {count / total * cpu_us:.1f} |" for part, count in counts.most_common()]
    return [*rows, f"| all | 100% | {cpu_us:.1f} |"]


def part_of(stack: str) -> str:
    """The part of the innermost frame that belongs to one; the event loop if no frame does."""
    for frame in reversed(stack.split(";")):
        for place, part in PARTS[:-1]:
            if place in frame:
                return part
    return PARTS[-1][1]


if __name__ == "__main__":
    command_line(main)
