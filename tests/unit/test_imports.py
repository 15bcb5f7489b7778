"""No module imports itself through other modules, also inside of functions, and no two have the same name."""

import ast
from collections import Counter
from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def modules(root: Path) -> dict[str, Path]:
    """Return the modules of all packages of the project except the tests, with their files."""
    found = {}
    for start in [*root.glob("*/__init__.py"), *root.glob("*/src/*/__init__.py")]:
        for path in start.parent.rglob("*.py") if start.parent.name != "tests" else ():
            parts = path.relative_to(start.parents[1]).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imported(name: str, path: Path, known: Mapping[str, Path]) -> Iterator[str]:
    """Return the modules of the project that a module imports, anywhere in its text."""
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (each.name for each in node.names if each.name in known)
        if isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) + 1 - node.level] if node.level else []
            source = ".".join([*above, *([node.module] if node.module else [])])
            inside = {f"{source}.{each.name}" for each in node.names}
            yield from inside & known.keys()
            if source in known and not inside <= known.keys():
                yield source


def cycle(root: Path) -> list[str]:
    """Return one cycle of imports, or an empty list."""
    known = modules(root)
    sorter = TopologicalSorter({name: set(imported(name, path, known)) for name, path in known.items()})
    try:
        sorter.prepare()
    except CycleError as exc:
        return list(exc.args[1])
    return []


def test_project_has_no_import_cycle() -> None:
    assert len(modules(ROOT)) > 100
    assert cycle(ROOT) == []


def test_no_two_modules_have_the_same_name() -> None:
    files = [path for path in modules(ROOT).values() if not {"tests", "tasks"} & set(path.relative_to(ROOT).parts)]
    names = Counter(path.name for path in files if not path.name.startswith("__"))
    assert [name for name, count in names.items() if count > 1] == []


@pytest.mark.parametrize(
    "text",
    ["from house.b import name", "from house import b", "import house.b", "from . import b", "from .b import name",
     "def main():\n    from house import b"],
)  # fmt: skip
def test_import_cycle_is_found(text: str, tmp_path: Path) -> None:
    package = tmp_path / "house"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "a.py").write_text(text)
    (package / "b.py").write_text("from house import c\nname = 1")
    (package / "c.py").write_text("import house.a")
    assert set(cycle(tmp_path)) == {"house.a", "house.b", "house.c"}
    (package / "c.py").write_text("")
    assert cycle(tmp_path) == []
