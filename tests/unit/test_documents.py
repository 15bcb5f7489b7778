"""The documents: files, targets, links and figures in them are correct, and they have the documented form."""

import re
from pathlib import Path

import pytest
import yaml

from bench.figures import BARS

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
CHANGES = {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}


@pytest.mark.parametrize("name", ["docs/architecture.md", "CONTRIBUTING.md", "SECURITY.md"])
def test_files_named_in_documents_exist(name: str) -> None:
    text = re.sub(r"```.*?```", "", (ROOT / name).read_text(), flags=re.DOTALL)
    paths = {each for each in re.findall(r"`([\w.-]+(?:/[\w.-]+)*/?)`", text) if "/" in each or each == "Makefile"}
    assert len(paths) > 4
    assert sorted(each for each in paths if not (ROOT / each).exists()) == []


@pytest.mark.parametrize("name", ["docs/architecture.md", "CONTRIBUTING.md", "docs/load.md", "docs/performance.md"])
def test_make_targets_named_in_documents_exist(name: str) -> None:
    targets = "".join(path.read_text() for path in [ROOT / "Makefile", *ROOT.glob("*/targets.mk")])
    verbs = set(re.findall(r"^([a-z0-9-]+):", targets, re.MULTILINE))
    named = {
        word
        for words in re.findall(r"(?:`|^)make ([a-z0-9 -]+)", (ROOT / name).read_text(), re.MULTILINE)
        for word in words.split()
    }
    assert named
    assert sorted(named - verbs) == []


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_to_existing_files_and_headings(path: Path) -> None:
    for link in re.findall(r"\]\((?!http)([^)]+)\)", path.read_text()):
        name, _, anchor = link.partition("#")
        target = path.parent / name if name else path
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def anchors(path: Path) -> set[str]:
    """Return the anchors of a document's headings as GitHub generates them."""
    headings = re.findall(r"^#+ (.*)$", path.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_architecture_lists_ten_decisions() -> None:
    text = (ROOT / "docs/architecture.md").read_text()
    decisions = text.partition("\n## Ten decisions\n")[2].partition("\n## ")[0]
    assert re.findall(r"^(\d+)\. \*\*", decisions, re.MULTILINE) == [str(number) for number in range(1, 11)]


def test_changelog_follows_keep_a_changelog() -> None:
    text = (ROOT / "CHANGELOG.md").read_text()
    first, *earlier = re.findall(r"^## (.*)$", text, re.MULTILINE)
    assert first == "[Unreleased]"
    assert all(re.fullmatch(r"\[\d+\.\d+\.\d+\] - \d{4}-\d{2}-\d{2}", heading) for heading in earlier)
    assert set(re.findall(r"^### (.*)$", text, re.MULTILINE)) <= CHANGES


def test_measurements_are_dated_and_listed() -> None:
    folder = ROOT / "docs/measurements"
    names = {path.name for path in folder.iterdir()} - {"README.md"}
    assert all(re.match(r"\d{4}-\d{2}-\d{2}-", name) for name in names)
    listed = set(re.findall(r"^\| \[(\S+)\]", (folder / "README.md").read_text(), re.MULTILINE))
    assert listed == {name for name in names if name.endswith(".md")}


def test_bounds_in_the_document_equal_those_of_the_bench() -> None:
    text = (ROOT / "docs/performance.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \| (at least|at most) ([\d.]+) \|", text, re.MULTILINE)
    bounds = {key: bar for key, bar in BARS.items() if (bar.least, bar.most) != (None, None)}
    assert {key for key, *_ in rows} == set(bounds)
    for key, side, value in rows:
        assert float(value) == (bounds[key].least if side == "at least" else bounds[key].most), key


def test_pre_commit_runs_make_lint() -> None:
    configuration = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())
    hooks = [hook for repository in configuration["repos"] for hook in repository["hooks"]]
    assert [hook["entry"] for hook in hooks] == ["make lint"]
    assert all(hook["always_run"] and not hook["pass_filenames"] for hook in hooks)
