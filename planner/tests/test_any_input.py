"""Every input leads to an outcome or to an error of one sentence, never to a traceback."""

import copy
import json
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from sluice_planner import curve, kubernetes_objects, manifests, scenarios
from sluice_planner.fields import Field, Wrong
from sluice_planner.rules.findings import check_overlay
from sluice_planner.rules.registry import Assumptions
from tests.overlays import objects

ODD: list[Any] = [
    None,
    True,
    -1,
    0,
    1.5,
    2**40,
    float("nan"),
    "",
    "x",
    "0",
    "-1",
    [],
    [None],
    {},
    {"a": 1},
    [{"a": [1]}],
]

EXTERNAL = {"metric": {"name": "q"}, "target": {"type": "AverageValue", "averageValue": "10"}}
SCENARIO = {
    "spec": {
        "minReplicas": 1,
        "maxReplicas": 9,
        "metrics": [{"type": "External", "external": EXTERNAL}],
        "behavior": {"scaleUp": {"policies": [{"type": "Pods", "value": 1, "periodSeconds": 15}], "tolerance": "0.1"}},
    },
    "initial_replicas": 2,
    "metric": [[0, 5], [20, None]],
    "duration_s": 60,
}
CURVE = {
    "min": 1,
    "max": 2,
    "arrivals": [[0, 5]],
    "samples": [{"t_s": at_s, "ready": 1, "desired": 1, "depth": 1} for at_s in (0, 5)],
}
SERIES = {"metric": {"__name__": "rabbitmq_queue_messages"}, "values": [[1, "2"], [3, "4"]]}
RANGE = {"data": {"resultType": "matrix", "result": [SERIES]}}


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The path of each value inside."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, each in inner for place in places(each, (*path, key)))]


def changed(value: Any, place: tuple[Any, ...], odd: Any) -> Any:
    """A copy with another value at the path."""
    if not place:
        return odd
    made = copy.deepcopy(value)
    at = made
    for key in place[:-1]:
        at = at[key]
    at[place[-1]] = odd
    return made


def all_changed(value: Any) -> Iterator[Any]:
    """Copies in which each value inside is replaced by each unusual value."""
    yield from (changed(value, place, odd) for place in places(value) for odd in ODD)


def sentence(use: Callable[[], Any]) -> str:
    """The error message of a call; empty if the call succeeds."""
    try:
        use()
    except Wrong as exc:
        return str(exc)
    return ""


@pytest.mark.parametrize("body", [0, 1, 2])
def test_overlays(body: int) -> None:
    good = [each.body for each in objects()]
    refused = 0
    for odd in all_changed(good[body]):
        if not isinstance(odd, dict) or not isinstance(odd.get("metadata"), dict) or "kind" not in odd:
            continue  # refused while the overlay is read
        read = [kubernetes_objects.Object("overlay.yaml", each) for each in [*good[:body], odd, *good[body + 1 :]]]
        refused += bool(sentence(lambda read=read: manifests.workloads(read, manifests.Reading())))  # type: ignore[misc]
        sentence(lambda read=read: check_overlay(read, Assumptions()))  # type: ignore[misc]
    assert refused > 0 or body == 2


def test_scenarios() -> None:
    refused = [sentence(partial(_run, odd)) for odd in all_changed(SCENARIO)]
    assert sum(bool(each) for each in refused) > len(refused) / 2
    assert all(each.startswith("scenario: ") for each in refused if each)


def _run(content: Any) -> None:
    scenarios.run(scenarios.scenario(Field(content, "scenario")))


@pytest.mark.parametrize("good", [CURVE, RANGE])
def test_curves(good: Any, tmp_path: Path) -> None:
    path = tmp_path / "curve.json"
    for odd in all_changed(good):
        path.write_text(json.dumps(odd))
        refused = sentence(partial(curve.read, path))
        assert not refused or refused.startswith(str(path))
