"""The command `sluice`: its output, its files, and its error messages."""

import json
import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from sluice_planner.cli import main
from tests.overlays import OVERLAY, written

TRAFFIC = ["--arrivals", "burst:100@10", "--service", "10"]


@pytest.fixture
def overlay(tmp_path: Path) -> str:
    return str(written(tmp_path))


def test_simulate_prints_a_report(overlay: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["simulate", overlay, *TRAFFIC]) == 0
    printed = capsys.readouterr().out
    assert re.search(r"^tasks done +100$", printed, re.MULTILINE)
    assert "t=15 s: jobs: 100 / 10 recommends 10, scaleUp's policies allow 5: 1 -> 5" in printed
    assert "waiting tasks" in printed
    assert "\x1b" not in printed


def test_simulate_prints_json(overlay: str, capsys: pytest.CaptureFixture[str]) -> None:
    main(["simulate", overlay, *TRAFFIC, "--json"])
    (found,) = json.loads(capsys.readouterr().out)["workloads"]
    assert (found["min"], found["max"], found["summary"]["done"]) == (1, 10, 100)
    assert found["decisions"][0]["after"] == 5
    assert {"at_s", "waiting", "running", "desired", "pods", "ready", "oldest_s"} == set(found["samples"][0])


def test_html_page_is_self_contained(overlay: str, tmp_path: Path) -> None:
    page, picture = tmp_path / "page.html", tmp_path / "picture.png"
    main(["simulate", overlay, *TRAFFIC, "--html", str(page), "--png", str(picture)])
    text = page.read_text()
    assert picture.read_bytes().startswith(b"\x89PNG")
    # the page refers to no external files
    assert re.findall(r"(?:src|href)=\"(?!#)", text) == []
    svg = text[text.index("<svg") : text.index("</svg>") + 6]
    assert len(list(ET.fromstring(svg).iter())) > 50  # noqa: S314 - our own
    assert "scaleUp&#x27;s policies allow 5" in text


def test_assumptions_are_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bare = written(tmp_path, re.sub(r"args: .*", "", OVERLAY))
    main(["simulate", str(bare), *TRAFFIC])
    assert "assumed: one task at a time per pod" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--arrivals", "-5/s", "--service", "1"], r"--arrivals: must be a rate"),
        (
            ["--arrivals", "other=5/s", "--service", "1"],
            r"--arrivals: no ScaledObject scales on the queue other, only on jobs",
        ),
        (["--arrivals", "5/s", "--service", "0"], r"--service: a service time must be above 0"),
        (["--arrivals", "1000000/s", "--service", "1"], r"--arrivals: makes 3,600,000,000 tasks"),
        ([*TRAFFIC, "--sync", "0"], r"--sync: must be between 0\.1 s and a year"),
        ([*TRAFFIC, "--duration", "forever"], r"--duration: must be a time"),
        ([*TRAFFIC, "--tolerance", "-1"], r"--tolerance: must be at least 0"),
        ([*TRAFFIC, "--nodes", "many"], r"--nodes: must read COUNTxCPUS,MEMORY"),
        ([*TRAFFIC, "--nodes", "3xmany,1Gi"], r"--nodes: must be a quantity"),
        ([*TRAFFIC, "--metrics-down", "20m-10m"], r"--metrics-down: must be two times"),
        ([*TRAFFIC, "--concurrency", "0"], r"--concurrency: must be at least 1"),
        ([*TRAFFIC, "--initial-replicas", "1000000"], r"--initial-replicas: must be at most 10000"),
        ([*TRAFFIC, "--concurrency", "9999", "--initial-replicas", "9999"], r".*9999 pods of 9999 tasks are too many"),
        ([*TRAFFIC, "--seed", "-1"], r"--seed: must be at least 0"),
        ([*TRAFFIC, "--png", "picture.bmp2"], r"picture\.bmp2: must end in \.png, \.svg or \.pdf"),
        ([*TRAFFIC, "--png", "no/folder.png"], r"no/folder\.png: cannot be written"),
        ([*TRAFFIC, "--html", "no/folder.html"], r"no/folder\.html: cannot be written"),
    ],
)
def test_invalid_options_are_refused_with_one_sentence(
    arguments: list[str], sentence: str, overlay: str, capsys: pytest.CaptureFixture[str]
) -> None:
    options = [f"{name}={value}" for name, value in zip(arguments[::2], arguments[1::2], strict=True)]
    assert main(["simulate", overlay, *options]) == 2
    printed = capsys.readouterr()
    assert re.match(sentence, printed.err), printed.err
    assert (printed.out, printed.err.count("\n")) == ("", 1)


def test_hpa_prints_a_list_for_a_list_of_scenarios(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    external = {"metric": {"name": "q"}, "target": {"type": "AverageValue", "averageValue": "1000"}}
    spec = {"minReplicas": 2, "maxReplicas": 30, "metrics": [{"type": "External", "external": external}]}
    scenario = {"spec": spec, "initial_replicas": 2, "metric": [[0, 0], [40, 29000], [70, None]], "duration_s": 75}
    path = tmp_path / "scenarios.json"
    path.write_text(json.dumps(scenario))
    assert main(["hpa", str(path)]) == 0
    # the HPA reads the metric at 15 s, 30 s and so on; after an error it keeps the replicas
    expected = [[15, 2], [30, 2], [45, 4], [60, 8], [75, 8]]
    assert json.loads(capsys.readouterr().out) == {"desired": expected}
    path.write_text(json.dumps([scenario, scenario]))
    main(["hpa", str(path)])
    assert json.loads(capsys.readouterr().out) == [{"desired": expected}] * 2


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"initial_replicas": -1}, r"json: initial_replicas: must be at least 0"),
        ({"metric": [[0, "x"]]}, r"json: metric\[0\]\[1\]: must be a number"),
        ({"metric": [[5, 1], [0, 1]]}, r"json: metric: must be in order of time"),
        ({"metric": {"other": []}}, r"json: metric\.q: must be a list"),
        ({"sync_period_s": 0}, r"json: sync_period_s: must be above 0"),
        ({"duration_s": 1e12}, r"json: sync_period_s: .* at most 1000000 times as long"),
        ({"sync": 15}, r"json: sync: is an unknown field"),
    ],
)
def test_invalid_scenarios_are_refused(
    change: dict[str, object], sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    external = {"metric": {"name": "q"}, "target": {"type": "AverageValue", "averageValue": "1000"}}
    spec = {"maxReplicas": 30, "metrics": [{"type": "External", "external": external}]}
    path = tmp_path / "scenarios.json"
    path.write_text(json.dumps({"spec": spec, "initial_replicas": 2, "metric": [[0, 0]], "duration_s": 60} | change))
    assert main(["hpa", str(path)]) == 2
    assert re.search(sentence, capsys.readouterr().err)


def test_the_command_is_installed_and_ends_quietly_in_a_pipe(overlay: str) -> None:
    command = (
        f"{Path(sys.executable).parent / 'sluice'} simulate {overlay} --arrivals burst:9 --service 1 --json | head -c 9"
    )
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ('{"workloa', "")
