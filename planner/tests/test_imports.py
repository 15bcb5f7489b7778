"""The package imports only its dependencies, and has no import cycles, including lazy imports."""

import ast
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import sluice_planner

FOLDER = Path(sluice_planner.__file__).parent
DEPENDENCIES = {"matplotlib", "numba", "numpy", "plotext", "yaml"}


def modules() -> dict[str, Path]:
    """Module -> its file; packages without code are left out."""
    paths = (path for path in FOLDER.rglob("*.py") if path.name != "__init__.py")
    return {".".join(("sluice_planner", *path.relative_to(FOLDER).with_suffix("").parts)): path for path in paths}


def imported(path: Path) -> set[str]:
    """Every name that a file imports, `package.name` for `from package import name`."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {each.name for each in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{each.name}" for each in node.names)}
    return found


def test_only_dependencies_are_imported() -> None:
    roots = {name.partition(".")[0] for path in modules().values() for name in imported(path)}
    assert roots <= {"sluice_planner", *DEPENDENCIES, *sys.stdlib_module_names}


def test_there_is_no_import_cycle() -> None:
    graph = {name: imported(path) & modules().keys() for name, path in modules().items()}
    assert sum(map(len, graph.values())) > len(graph)
    assert len(list(TopologicalSorter(graph).static_order())) == len(graph)
