"""The table of bounds in docs/reliability.md matches the code, and its metrics exist."""

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
# Name of a bound. Each such constant of apps/api and apps/amqp must be in the table.
BOUND = re.compile(r"[A-Z_]*(_MAX|_MAX_BYTES|_MAX_CHARS|DEADLINE_S|TIMEOUT_S|WINDOW)")
NO_BOUNDS = {
    "apps.api.http.JOINED_MAX_BYTES": "decides between one write and two",
    "apps.api.openapi.TEXT_MAX_CHARS": "limits a document of the team, not a client",
    "apps.api.publisher.BACKOFF_MAX_S": "an interval between attempts",
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


def test_table_is_parsed_and_has_no_duplicates() -> None:
    assert len(ROWS) == sum(1 for _ in rows()) > 40  # no bound twice


@named
def test_value_in_the_table_is_that_of_the_code(where: str) -> None:
    module, _, name = where.rpartition(".")
    if module:
        value = getattr(importlib.import_module(module), name)
    else:
        fields = ApiSettings.model_fields | WorkerSettings.model_fields
        value = fields[name.lower()].default
    number, _, unit = ROWS[where].value.partition(" ")
    assert float(number.replace(",", "")) * UNITS[unit] == value


@named
def test_metric_in_the_table_exists(where: str) -> None:
    found = re.fullmatch(r'`(sluice_[a-z_]+)(?:\{([a-z]+)="([A-Za-z-]+)"\})?`', ROWS[where].metric)
    assert found, "name a metric, with at most one label"
    name, label, value = found.groups()
    assert name in samples()
    if label:
        assert label in samples()[name]
        assert f'"{value}"' in sources()


@named
def test_problem_in_the_table_exists(where: str) -> None:
    for kind in re.findall(r"(?:413|422|400|503) `([a-z-]+)`", ROWS[where].outcome):
        assert f'"{kind}"' in (ROOT / "apps/api/errors.py").read_text()


@pytest.mark.parametrize("path", sorted((ROOT / "apps").glob("a[mp]*/*.py")), ids=str)
def test_each_bound_of_the_code_is_in_the_table(path: Path) -> None:
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
    """Return the names of the metrics of all processes with their labels."""
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
    """Read the labels from the metric's declaration: without samples, the metric itself does not show them."""
    declared = re.search(rf'"{name}",[^\[\]()]*(?:\([^()]*\)[^\[\]()]*)*\[([^\]]*)\]', sources())
    return set(re.findall(r'"([a-z]+)"', declared[1])) if declared else set()
