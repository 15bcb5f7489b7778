"""The table of bounds in docs/reliability.md says what the code says, and the processes have its metrics."""

import ast
import importlib
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

from apps.contract.settings import ApiSettings, WorkerSettings
from tests.unit.test_metric_names import families

ROOT = Path(__file__).parents[2]
PROCESSES = ("apps.api.app", "apps.worker.request", "apps.worker.recorder")
UNITS = {"s": 1, "h": 3600, "KiB": 1024, "MiB": 1024 * 1024, "": 1}
# A name of a bound; each of these in the API and its AMQP must be in the table.
BOUND = re.compile(r"[A-Z_]*(_MAX|_MAX_BYTES|_MAX_CHARS|DEADLINE_S|TIMEOUT_S|WINDOW)")
NO_BOUNDS = {
    "apps.api.http.JOINED_MAX_BYTES": "decides between one write and two",
    "apps.api.openapi.TEXT_MAX_CHARS": "of a document that the team writes",
    "apps.api.publisher.BACKOFF_MAX_S": "a pause between two tries",
}


class Row(NamedTuple):
    bound: str
    where: str
    value: str
    outcome: str
    metric: str


def rows() -> Iterator[Row]:
    section = (ROOT / "docs/reliability.md").read_text().partition("\n## Bounds\n")[2].partition("\n## ")[0]
    for line in section.splitlines():
        if line.startswith("| ") and not line.startswith("| bound |"):
            yield Row(*(cell.strip() for cell in line.strip("|").split(" | ")))


ROWS = {row.where.strip("`"): row for row in rows()}
named = pytest.mark.parametrize("where", ROWS)


def test_rows_are_read() -> None:
    assert len(ROWS) == sum(1 for _ in rows()) > 40  # each bound once


@named
def test_value_is_that_of_the_code(where: str) -> None:
    module, _, name = where.rpartition(".")
    if module:
        value = getattr(importlib.import_module(module), name)
    else:
        fields = ApiSettings.model_fields | WorkerSettings.model_fields
        value = fields[name.lower()].default
    number, _, unit = ROWS[where].value.partition(" ")
    assert float(number.replace(",", "")) * UNITS[unit] == value


@named
def test_metric_is_one_of_the_processes(where: str) -> None:
    found = re.fullmatch(r'`(sluice_[a-z_]+)(?:\{([a-z]+)="([A-Za-z-]+)"\})?`', ROWS[where].metric)
    assert found, "name a metric, with at most one label"
    name, label, value = found.groups()
    assert name in samples()
    if label:
        assert label in samples()[name]
        assert f'"{value}"' in sources()


@named
def test_problem_is_one_of_the_api(where: str) -> None:
    for kind in re.findall(r"(?:413|422|400|503) `([a-z-]+)`", ROWS[where].outcome):
        assert f'"{kind}"' in (ROOT / "apps/api/errors.py").read_text()


@pytest.mark.parametrize("path", sorted((ROOT / "apps").glob("a[mp]*/*.py")), ids=str)
def test_bound_of_the_code_is_in_the_table(path: Path) -> None:
    module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
    assigned = {
        f"{module}.{target.id}"
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name) and BOUND.fullmatch(target.id)
    }
    assert assigned - NO_BOUNDS.keys() <= ROWS.keys(), "add it to the table of bounds in docs/reliability.md"


@cache
def samples() -> dict[str, set[str]]:
    """Name of each metric as it is scraped -> its labels, of all processes."""
    found = {}
    for process in PROCESSES:
        for family in families(process):
            name = f"{family.name}_total" if family.type == "counter" else family.name
            found[name] = labels_of(family.name)
    return found


@cache
def sources() -> str:
    return "\n".join(path.read_text() for path in (ROOT / "apps").rglob("*.py"))


def labels_of(name: str) -> set[str]:
    """The labels in a metric's declaration: before its first event it has no sample that would say them."""
    declared = re.search(rf'"{name}",[^\[\]()]*(?:\([^()]*\)[^\[\]()]*)*\[([^\]]*)\]', sources())
    return set(re.findall(r'"([a-z]+)"', declared[1])) if declared else set()
