"""`sluice compare` and `sluice replay`."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from sluice_planner import curve, figure
from sluice_planner.cli import main
from sluice_planner.fields import Wrong
from tests.overlays import OVERLAY, outcome, workload, written

TRAFFIC = ["--arrivals", "burst:100@10", "--service", "10"]


@pytest.fixture
def base(tmp_path: Path) -> str:
    return str(written(tmp_path))


@pytest.fixture
def other(tmp_path: Path) -> str:
    (tmp_path / "other").mkdir()
    return str(written(tmp_path / "other", OVERLAY.replace("maxReplicaCount: 10", "maxReplicaCount: 20")))


def test_compare_side_by_side(base: str, other: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", base, other, *TRAFFIC]) == 0
    printed = capsys.readouterr().out
    (row,) = [line for line in printed.splitlines() if line.startswith("peak replicas")]
    assert row.split()[2:] == ["10", "10"]
    assert main(["compare", base, other, "--arrivals", "burst:400@10", "--service", "10"]) == 0
    (row,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("peak replicas")]
    assert row.split()[2:] == ["10", "20", "+100%"]


def test_compare_for_a_pull_request(base: str, other: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture = tmp_path / "picture.svg"
    main(["compare", base, other, *TRAFFIC, "--markdown", "--png", str(picture)])
    lines = capsys.readouterr().out.splitlines()
    assert lines[2] == f"| | {base} | {other} | change |"
    assert "| tasks done | 100 | 100 |  |" in lines
    assert any(line.startswith("t=15 s: jobs: 100 / 10 recommends 10") for line in lines)
    assert "<svg" in picture.read_text()


def test_picture_shows_both_outcomes() -> None:
    small, large = (outcome(workload(maxReplicaCount=most), "burst:400", duration_s=300) for most in (5, 20))
    drawn = figure.figure([small, large], ["small", "large"])
    assert [axes.get_ylim()[0] for axes in drawn.axes] == [0] * 4
    assert all(axes.get_ylim()[1] > 20 for axes in drawn.axes)


def test_compare_needs_the_same_scaled_objects(base: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    second = OVERLAY.replace("name: worker", "name: more").replace("name: scaler", "name: second")
    both = tmp_path / "both.yaml"
    both.write_text(f"{OVERLAY}---{second.replace('queueName: jobs', 'queueName: more')}")
    assert main(["compare", base, str(both), "--arrivals", "jobs=burst:1", "--service", "1"]) == 2
    assert "the ScaledObjects must be the same, not scaler and scaler, second" in capsys.readouterr().err


def recorded(slower_by: float = 1.0) -> dict[str, Any]:
    """A recording that equals the prediction for other numbers than the overlay's, delayed by some seconds."""
    found = outcome(workload(minReplicaCount=2, maxReplicaCount=8), "burst:100@30", "10", duration_s=600)
    samples = [
        {
            "t_s": each.at_s * slower_by,
            "ready": each.ready,
            "desired": each.desired,
            "depth": each.waiting + each.running,
        }
        for each in found.samples
    ]
    numbers = {"min": 2, "max": 8, "value": 10, "sync_s": 15, "service_s": 10}
    return {**numbers, "arrivals": [[30 * slower_by, 100]], "samples": samples}


def replayed(curve_: dict[str, Any], base: str, *options: str) -> int:
    path = Path(base).with_name("curve.json")
    path.write_text(json.dumps(curve_))
    return main(["replay", base, str(path), *options])


def test_replay_of_the_predicted_curve_agrees(base: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert replayed(recorded(), base, "--json", "--png", str(tmp_path / "picture.png")) == 0
    found = json.loads(capsys.readouterr().out)
    assert [each["what"] for each in found["times"]] == ["maximum ready", "queue empty"]
    assert all(each["good"] for each in found["times"])
    assert found["depth_error"] < 0.05
    assert (tmp_path / "picture.png").exists()


def test_replay_of_another_curve_differs(base: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert replayed(recorded(slower_by=3), base) == 1
    printed = capsys.readouterr().out
    assert "queue empty" in printed
    assert "OFF" in printed


def test_replay_where_the_maximum_is_never_reached(base: str, capsys: pytest.CaptureFixture[str]) -> None:
    weak = recorded() | {"max": 100}
    assert replayed(weak, base, "--json") in {0, 1}
    reached = json.loads(capsys.readouterr().out)["times"][0]
    assert (reached["measured_s"], reached["predicted_s"], reached["good"]) == (None, None, True)


def test_a_prometheus_range(tmp_path: Path) -> None:
    def series(name: str, values: list[float]) -> dict[str, Any]:
        return {
            "metric": {"__name__": name},
            "values": [[1000 + 5 * at, str(value)] for at, value in enumerate(values)],
        }

    result = [
        series("rabbitmq_queue_messages", [0, 7, 3, 0]),
        series("rabbitmq_queue_messages_published_total", [100, 107, 107, 2]),
        series("kube_deployment_status_replicas_ready", [1, 1, 2, 2]),
        series("kube_deployment_spec_replicas", [1, 2, 2, 2]),
    ]
    path = tmp_path / "range.json"
    path.write_text(json.dumps({"status": "success", "data": {"resultType": "matrix", "result": result}}))
    read = curve.read(path)
    # after a reset, a counter starts from 0
    assert read.arrivals == ((5, 7), (15, 2))
    assert read.points[2] == (10, 2, 2, 3)
    path.write_text(json.dumps({"data": {"resultType": "matrix", "result": result[:3]}}))
    with pytest.raises(Wrong, match="has no series kube_horizontalpodautoscaler"):
        curve.read(path)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"arrivals": []}, "arrivals: has no arrival"),
        ({"arrivals": [[1]]}, r"arrivals\[0\]: must be \[t_s, count\]"),
        ({"arrivals": [[1, -1]]}, r"arrivals\[0\]\[1\]: must be at least 0"),
        ({"samples": []}, "samples: must be 2 to 1000000"),
        ({"samples": [{"t_s": 1}, {"t_s": 2}]}, r"samples\[0\]\.ready: must be a number, not missing"),
        ({"service_s": None}, "service_s: is missing: add it, or use --service"),
        ({"min": 20}, "the minimum 20 is above the maximum 8"),
        ({"sync_s": 0}, "sync_s: must be at least 0.1"),
    ],
)
def test_invalid_curves_are_refused(
    change: dict[str, Any], sentence: str, base: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert replayed(recorded() | change, base) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert re.search(sentence, error), error
