"""Servers with one fault each: `python -m tests.load.faulty FAULT PORT`. Otherwise they behave as the stub."""

import math
import sys
import time
from typing import Any

from loadtest import stub
from loadtest.stub import Answer, Tasks

# the number of the post or task that goes wrong
UNLUCKY = 50


class Loses(Tasks):
    """Accept a task that never ends."""

    def left_s(self, task_id: str) -> float:
        return math.inf if list(self._tasks).index(task_id) == UNLUCKY - 1 else super().left_s(task_id)


class Fails(Tasks):
    """Answer one post with 500."""

    posts = 0

    def post(self, body: dict[str, Any], key: str | None) -> Answer:
        self.posts += 1
        return (500, {}) if self.posts == UNLUCKY else super().post(body, key)


class Mixes(Tasks):
    """Give one task the result of the task before it."""

    def result(self, task_id: str) -> dict[str, str]:
        ids = list(self._tasks)
        place = ids.index(task_id)
        return super().result(ids[place - 1] if place == UNLUCKY - 1 else task_id)


class Hesitates(Tasks):
    """Accept slowly: 200 ms, twice the limit of 100 ms (20 times the stub's p95, which counts as 5 ms at least)."""

    def post(self, body: dict[str, Any], key: str | None) -> Answer:
        time.sleep(0.2)
        return super().post(body, key)


class Dawdles(Tasks):
    """Deliver each result 3 s late, far above the limit for a stub that is 40 ms late on a busy machine."""

    def left_s(self, task_id: str) -> float:
        return super().left_s(task_id) + 3


class Miscounts(Tasks):
    """Count a task that no client has posted."""

    def metrics(self) -> str:
        self.accepted["load_long"] += 1
        return super().metrics()


class Doubles(Tasks):
    """Ignore keys: a repeated post creates another task."""

    def post(self, body: dict[str, Any], key: str | None) -> Answer:  # noqa: ARG002 - to ignore the key is the fault
        return super().post(body, None)


class Refuses(Tasks):
    """Refuse the last task of a batch when it is sent first: a failure, except for shapes that intend refusals."""

    def __init__(self) -> None:
        super().__init__()
        self._partly: dict[str | None, list[dict[str, Any]]] = {}

    def post(self, body: dict[str, Any], key: str | None) -> Answer:
        if "tasks" not in body:
            return super().post(body, key)
        if key not in self._partly:
            self._partly[key] = [{"status": 202, **self.accept(given)} for given in body["tasks"][:-1]]
            refused = {"status": 503, "type": "urn:sluice:problem:refused", "detail": "no room"}
            return 202, {"outcomes": [*self._partly[key], refused]}
        if len(self._partly[key]) < len(body["tasks"]):
            self._partly[key].append({"status": 202, **self.accept(body["tasks"][-1])})
        return 202, {"outcomes": self._partly[key]}


FAULTS = {"none": Tasks} | {
    kind.__name__.lower(): kind for kind in (Loses, Fails, Mixes, Hesitates, Dawdles, Miscounts, Doubles, Refuses)
}

if __name__ == "__main__":
    fault = sys.argv.pop(1)
    stub.main(FAULTS[fault])
