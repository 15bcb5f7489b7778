"""The report in a browser: without a network, at the width of a desktop and of a phone."""

import json
import math
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from loadtest import gates, report, shapes
from loadtest.gates import Seen
from loadtest.ledger import Ledger
from loadtest.report import Run
from loadtest.sample import Sample, Usage
from loadtest.shapes import Shape
from ops.command import Unusable
from tests.harness.browser import Page, page
from tests.harness.simple_tasks import WORK_QUEUE

SHAPE = shapes.load("burst", {})
MISSING = ("7 s: the broker does not answer", "8 s: the broker does not answer")
PARTS = ("NGINX", "API", "RabbitMQ", "workers", "Redis", "recorder", "Locust")
TITLES = ["Users", "What went in and out", "Queues", "Workers", "Oldest waiting task", "Accepting", "Result"]
TITLES += ["Processor", "Memory"]
CHARTS = """[...document.querySelectorAll("figure")].map(figure => ({
    title: figure.querySelector("figcaption").firstChild.textContent,
    lines: [...figure.querySelectorAll("path")].map(path => path.getAttribute("d")),
    legend: figure.querySelector(".legend").textContent,
}))"""
SMALLEST_PX = """Math.min(...[...document.querySelectorAll("body *")]
    .filter(each => each.textContent.trim() && !each.closest("script, style"))
    .map(each => parseFloat(getComputedStyle(each).fontSize)))"""
# texts of a chart that extend beyond its drawing
CUT_OFF = """[...document.querySelectorAll("svg text")].filter(text => {
    const box = text.getBoundingClientRect(), whole = text.ownerSVGElement.getBoundingClientRect();
    return box.left < whole.left - 1 || box.right > whole.right + 1;
}).map(text => text.textContent)"""


def ledger(shape: Shape, late_ms: float) -> Ledger:
    """Return the ledger of a burst: as many tasks as users, and a backlog in the middle."""
    found = Ledger()
    for second in range(int(shape.length_s) + 20):
        users = shape.users_at(second) or 0
        events: list[tuple[Any, ...]] = [(second, "second", users, second * 30, 0)]
        for number in range(users // 20):
            task_id, late_s = f"{second}-{number}", late_ms / 1000 * (1 + 300 * (users > 100))
            events += [
                (second, "accepted", task_id, "load_short", f"name {task_id}", late_ms / 2 * (1 + number % 3)),
                (second + 10 + late_s, "finished", task_id, 1000 * late_s),
            ]
        found.read(json.dumps(event) for event in events)
    found.read([json.dumps((found.end_s, "end", {}, False))])
    return found


def samples(shape: Shape) -> Iterator[tuple[float, Sample]]:
    for second in range(int(shape.length_s)):
        usage = {part: {part: Usage(second * 0.05 * place, 50.0 * (1 + place))} for place, part in enumerate(PARTS)}
        usage["workers"] = {f"worker-{number}": Usage(second * 0.05 * number, 60.0) for number in (1, 2)}
        wave = round(20 * (1 + math.sin(second / 30)))
        yield float(second), Sample(wave, 10 + wave, usage, 2 + second // 20, 2, 30)


def written(folder: Path, *, held: bool = True) -> Path:
    run, floor = ledger(SHAPE, 12), ledger(SHAPE, 3)
    if not held:
        run.wrong.append("0199d5a0-7c3e-7b1c: another task's result </script><script>throw 1</script><!--<script>")
    seen = Seen(
        {"load_short": len(run.tasks)},
        dict.fromkeys((WORK_QUEUE, "celery", "dead", "dead.parked"), 0),
        len(run.tasks),
    )
    verdict = gates.judged(SHAPE, run, floor, seen)
    about = {
        "where": "http://a-rather-long-name-of-a-load-balancer.region-1.compute.example.com:8080",
        "rabbitmq": "4.3.0",
    }
    return report.write(folder, Run(SHAPE, about, run, floor, list(samples(SHAPE)), verdict, MISSING))


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    """A browser. If there is none: a skip on a laptop, a failure in CI."""
    try:
        with page(tmp_path_factory.mktemp("browser")) as opened:
            yield opened
    except Unusable as exc:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(exc))


@pytest.fixture(autouse=True)
def _no_errors(browser: Page) -> Iterator[None]:
    browser.errors.clear()
    yield
    assert browser.errors == []


@pytest.mark.parametrize("width", [1280, 400])
def test_page_is_readable_on_desktop_and_phone(browser: Page, tmp_path: Path, width: int) -> None:
    browser.open(written(tmp_path), width)
    browser.picture(tmp_path / f"{width}.png")
    assert browser.evaluate("document.documentElement.scrollWidth") == width
    assert browser.evaluate(SMALLEST_PX) >= 12
    assert browser.evaluate(CUT_OFF) == []


def test_every_chart_has_its_data(browser: Page, tmp_path: Path) -> None:
    browser.open(written(tmp_path), 1280)
    charts = browser.evaluate(CHARTS)
    assert [chart["title"] for chart in charts] == TITLES
    for chart in charts:
        assert all(line.count("L") > 100 for line in chart["lines"]), chart["title"]
        assert all("NaN" not in line and "Infinity" not in line for line in chart["lines"]), chart["title"]
    assert [len(chart["lines"]) for chart in charts] == [1, 4, 2, 3, 1, 3, 3, 7, 7]


def test_failed_samples_are_reported(browser: Page, tmp_path: Path) -> None:
    browser.open(written(tmp_path), 1280)
    told = browser.evaluate("document.getElementById('missing').textContent")
    assert told == f"2 samples are missing, the first at {MISSING[0]}"


def test_every_process_has_a_row(browser: Page, tmp_path: Path) -> None:
    browser.open(written(tmp_path), 1280)
    rows = browser.evaluate("[...document.querySelectorAll('#processes tr')].map(each => each.innerText)")
    assert [row.partition("\t")[0] for row in rows[1:]] == [
        "NGINX", "API", "RabbitMQ", "workers: worker-1", "workers: worker-2", "Redis", "recorder", "Locust",
    ]  # fmt: skip
    assert rows[5].split("\t")[1:] == ["0.10", "0.10", "0.10", "60", "60", "60"]


def test_verdict_and_gates_are_at_the_top(browser: Page, tmp_path: Path) -> None:
    browser.open(written(tmp_path, held=False), 1280)
    assert browser.evaluate("document.getElementById('verdict').textContent") == "burst: ✕ not every gate held"
    told = browser.evaluate("[...document.querySelectorAll('.gates li')].map(each => each.innerText)")
    (wrong,) = (each for each in told if "✕" in each)
    assert "every result right" in wrong
    assert "another task's result </script><script>throw 1</script><!--<script>" in wrong
    assert browser.evaluate("document.querySelector('.gates').getBoundingClientRect().bottom") < 900


def test_pointing_at_one_chart_shows_the_values_of_all_charts(browser: Page, tmp_path: Path) -> None:
    browser.open(written(tmp_path), 1280)
    browser.evaluate(
        """(() => {
            const svg = document.querySelectorAll("svg")[2], box = svg.getBoundingClientRect();
            const middle = {clientX: box.left + box.width / 2, clientY: box.top + 9};
            svg.dispatchEvent(new PointerEvent("pointermove", middle));
        })()"""
    )
    legends = [chart["legend"] for chart in browser.evaluate(CHARTS)]
    assert legends[0] == "users 200"
    assert not any("most" in legend.replace("most 30", "") for legend in legends)


def test_page_loads_nothing_from_other_addresses(tmp_path: Path) -> None:
    text = written(tmp_path).read_text()
    outside = [word for word in text.split('"') if "://" in word and "compute.example.com" not in word]
    assert outside == ["http://www.w3.org/2000/svg"]


def test_figures_are_also_written_as_json(tmp_path: Path) -> None:
    written(tmp_path)
    found = json.loads((tmp_path / "report.json").read_text())
    assert found["verdict"] == "held"
    assert found["missing_samples"] == {"count": 2, "first": MISSING[0]}
    assert [hold["users"] for hold in found["holds"]] == [20, 200, 20]
    assert found["holds"][1]["accepted_per_s"] == 10
    assert found["parts"]["API"]["cores"] == pytest.approx(0.05)
    assert {len(values) for name, values in found["series"].items() if isinstance(values, list)} == {
        len(found["series"]["t_s"])
    }


@pytest.mark.parametrize(("accepted_per_s", "users", "reached"), [((10, 20, 20), 40, True), ((10, 20, 27), 60, False)])
def test_knee_is_the_last_step_that_serves_all_its_users(
    accepted_per_s: tuple[int, ...], users: int, reached: bool
) -> None:
    run = Ledger()
    shape = replace_stages(SHAPE, [(10, 20), (30, 20), (10, 40), (30, 40), (10, 60), (30, 60)])
    run.read([json.dumps((0, "second", 1, 0, 0))])
    for (begin_s, end_s, _), per_s in zip(shape.holds(), accepted_per_s, strict=True):
        for number in range(int(end_s - begin_s) * per_s):
            at_s, task_id = begin_s + number / per_s, f"{begin_s}-{number}"
            run.read([json.dumps((at_s, "accepted", task_id, "load_short", task_id, 5))])
            run.read([json.dumps((at_s + 0.01, "finished", task_id, 5))])
    verdict = gates.judged(shape, run, run, Seen({}, {}))
    found = report.figures(Run(shape, {}, run, run, list(samples(shape)), verdict))["knee"]
    assert (found["users"], found["reached"]) == (users, reached)
    assert found["most_per_s"] == max(accepted_per_s)


def replace_stages(shape: Shape, stages: list[tuple[float, int]]) -> Shape:
    return shape.model_copy(update={"stages": tuple(stages), "limits": None})


def test_report_of_an_empty_run_can_be_opened(browser: Page, tmp_path: Path) -> None:
    run = Ledger()
    run.read([json.dumps((0, "second", 0, 0, 0)), json.dumps((1, "end", {}, False))])
    verdict = replace(gates.judged(SHAPE, run, run, Seen({}, {})), void=("Locust ended",))
    browser.open(report.write(tmp_path, Run(SHAPE, {"where": "nowhere"}, run, run, [], verdict)), 400)
    assert browser.evaluate("document.getElementById('verdict').textContent").endswith("void, it says nothing")
