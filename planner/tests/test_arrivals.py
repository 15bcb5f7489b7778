"""Arrivals and service times are parsed and drawn, and invalid ones are refused."""

import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import numpy as np
import pytest

from sluice_planner import arrivals, service_times
from sluice_planner.arrivals import BLOCK, Floats, Source
from sluice_planner.fields import Wrong


def times(text: str, until_s: float, seed: int = 1) -> Floats:
    (each,) = arrivals.read(text, "--arrivals")
    return Source(each, np.random.default_rng(seed)).until(until_s)


def test_a_rate_is_a_poisson_process() -> None:
    gaps = np.diff(times("20/s", 5000))
    # mean and standard deviation of 100,000 exponential gaps: 50 ms, each within 5 standard errors
    assert gaps.mean() == pytest.approx(0.05, rel=5 / np.sqrt(len(gaps)))
    assert gaps.std() == pytest.approx(0.05, rel=10 / np.sqrt(len(gaps)))


@pytest.mark.parametrize(("text", "rate"), [("20/s", 20), ("20", 20), ("constant:1200/m", 20), ("7200/h", 2)])
def test_rates(text: str, rate: float) -> None:
    (each,) = arrivals.read(text, "--arrivals")
    assert each.expected(100) == pytest.approx(100 * rate)


def test_burst_arrives_at_one_time() -> None:
    assert times("burst:3@1m", 1000).tolist() == [60, 60, 60]
    assert times("burst:3@1m", 60).tolist() == []


def test_steps_change_the_rate() -> None:
    came = times("steps:10=100/s,20=0/s,30=300/s", 40)
    counts, _ = np.histogram(came, [0, 10, 20, 30, 40])
    assert counts[[0, 2]].tolist() == [0, 0]
    assert counts[[1, 3]] == pytest.approx([1000, 3000], rel=0.15)


def test_a_sine_has_its_mean_and_its_peak() -> None:
    (day,) = arrivals.read("sine:mean=2/s,peak=3/s,period=24h", "--arrivals")
    assert day.expected(86400) == pytest.approx(2 * 86400)
    noon = day.expected(43500) - day.expected(42900)
    assert noon == pytest.approx(3 * 600, rel=0.01)


def test_trace_is_reproduced_exactly(tmp_path: Path) -> None:
    path = tmp_path / "trace.csv"
    path.write_text("t_s,count\n0,2\n10,0\n20,4\n")
    # a count is spread until the next row, and the last one over the span of the row before
    assert times(f"trace:{path}", 1000).tolist() == [2.5, 7.5, 21.25, 23.75, 26.25, 28.75]


SHAPE = """
from locust import LoadTestShape

class Stages(LoadTestShape):
    stages = [(10, 100, 100), (20, 0, 50)]

    def tick(self):
        for end_s, users, rate in self.stages:
            if self.get_run_time() < end_s:
                return users, rate
        return None
"""


def test_a_locust_shape(tmp_path: Path) -> None:
    path = tmp_path / "locustfile.py"
    path.write_text(SHAPE)
    (each,) = arrivals.read(f"shape:{path},per-user=2/s", "--arrivals")
    # a hundred users start at once, and stop within two seconds
    assert [each.expected(at_s) for at_s in (1, 10, 11, 12, 20)] == [200, 2000, 2100, 2100, 2100]
    assert each.end_s == 11
    assert "locust" not in sys.modules


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("", "must have one LoadTestShape, not 0"),
        ("from locust import FastHttpUser", "cannot import name 'FastHttpUser'.* install the package that it needs"),
        ("1 / 0", "fails: ZeroDivisionError"),
        (SHAPE.replace("< end_s", "< 0"), "its shape has no user at any time"),
        (SHAPE.replace("return None", "return 1, 1"), "does not end within 7 days"),
    ],
)
def test_invalid_shapes_are_refused(content: str, sentence: str, tmp_path: Path) -> None:
    path = tmp_path / "locustfile.py"
    path.write_text(content)
    with pytest.raises(Wrong, match=f"^--arrivals: .*{sentence}"):
        arrivals.read(f"shape:{path},per-user=2/s", "--arrivals")


def test_parts_are_joined_and_walked_in_blocks() -> None:
    assert [each.count[-1] for each in arrivals.read("burst:5 + burst:7@10", "--arrivals")] == [5, 7]
    (each,) = arrivals.read("1000/s", "--arrivals")
    source, whole = Source(each, np.random.default_rng(3)), times("1000/s", 200, seed=3)
    assert len(whole) > 2 * BLOCK
    parts = [source.until(until_s) for until_s in (0.001, 50, 50, 130, 200)]
    assert np.concatenate(parts) == pytest.approx(whole)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("-5/s", "must be a rate such as 20/s"),
        ("nan", "must be a rate"),
        ("0/s", "generates no task"),
        ("20/fortnight", "must be a rate"),
        ("flood:3", "'flood' is not one of constant, burst"),
        ("burst:many", "must be a number of tasks such as"),
        ("burst:5@noon", "must be a time such as"),
        ("steps:5/s", "steps must read time=rate"),
        ("steps:10=5/s,5=1/s", "times of steps must increase"),
        ("sine:mean=5/s", "a sine must read"),
        ("sine:mean=5/s,peak=11/s", "peak must be between its mean and twice that"),
        ("trace:missing.csv", "missing.csv: cannot be read"),
        ("shape:missing.py", "a shape must read"),
        ("shape:missing.py,per-user=1/s", "missing.py: is not a Python file"),
    ],
)
def test_invalid_arrivals_are_refused(text: str, sentence: str) -> None:
    with pytest.raises(Wrong, match=f"^--arrivals: .*{sentence}"):
        arrivals.read(text, "--arrivals")


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("", "has no row of time and count"),
        ("t,count\n", "has no row of time and count"),
        ("0,1\n0,2\n", "times must increase"),
        ("0,-1\n", "no count may be negative"),
        ("0,1\nx,2\n", "row 2: must be a time in seconds and a count, not 'x,2'"),
        ("0,1,2\n", "row 1: must be a time"),
        ("0,0\n", "generates no task"),
    ],
)
def test_invalid_traces_are_refused(content: str, sentence: str, tmp_path: Path) -> None:
    (tmp_path / "trace.csv").write_text(content)
    with pytest.raises(Wrong, match=sentence):
        arrivals.read(f"trace:{tmp_path / 'trace.csv'}", "--arrivals")


@pytest.mark.parametrize(
    ("text", "mean_s", "deviation"),
    [
        ("12.5", 12.5, 0),
        ("constant:500ms", 0.5, 0),
        ("exponential:2", 2, 2),
        ("lognormal:10,cv=0.5", 10, 5),
    ],
)
def test_service_times(text: str, mean_s: float, deviation: float) -> None:
    read = service_times.read(text, "--service")
    drawn = read.draw(np.random.default_rng(1), 100_000)
    assert [read.mean_s, drawn.mean(), drawn.std()] == pytest.approx([mean_s, mean_s, deviation], rel=0.02)


def test_a_measured_histogram(tmp_path: Path) -> None:
    path = tmp_path / "times.csv"
    path.write_text("le,count\n10,1\n20,3\n")
    read = service_times.read(f"histogram:{path}", "--service")
    drawn = read.draw(np.random.default_rng(1), 100_000)
    assert read.mean_s == pytest.approx((5 + 3 * 15) / 4)
    assert (drawn < 10).mean() == pytest.approx(0.25, abs=0.01)
    assert drawn.mean() == pytest.approx(read.mean_s, rel=0.01)


METRICS = """
# TYPE sluice_task_run_seconds histogram
sluice_task_run_seconds_bucket{le="10.0",task="a"} 1.0
sluice_task_run_seconds_bucket{le="20.0",task="a"} 2.0
sluice_task_run_seconds_bucket{le="+Inf",task="a"} 2.0
sluice_task_run_seconds_bucket{le="10.0",task="b"} 0.0
sluice_task_run_seconds_bucket{le="20.0",task="b"} 2.0
sluice_task_run_seconds_bucket{le="+Inf",task="b"} 2.0
"""


def test_histogram_of_the_worker_metrics(tmp_path: Path) -> None:
    path = tmp_path / "metrics.txt"
    path.write_text(METRICS)
    assert service_times.read(f"metrics:{path}", "--service").mean_s == pytest.approx((5 + 3 * 15) / 4)
    path.write_text(METRICS.replace('le="+Inf",task="b"} 2', 'le="+Inf",task="b"} 3'))
    with pytest.raises(Wrong, match="1 tasks are above the highest bound"):
        service_times.read(f"metrics:{path}", "--service")


def test_worker_on_this_machine_is_read_without_a_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    class Metrics(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(METRICS.encode())

        def log_message(self, *_: object) -> None: ...

    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    with HTTPServer(("127.0.0.1", 0), Metrics) as server:
        serving = threading.Thread(target=server.handle_request)
        serving.start()
        found = service_times.read(f"metrics:http://localhost:{server.server_port}/metrics", "--service")
        serving.join()
    assert found.mean_s == pytest.approx((5 + 3 * 15) / 4)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("0", "must be above 0"),
        ("-1", "must be a time such as"),
        ("lognormal:10", "a lognormal must read"),
        ("lognormal:10,cv=0", "a lognormal must read"),
        ("weibull:1", "'weibull' is not one of"),
        ("histogram:missing.csv", "missing.csv: cannot be read"),
        ("metrics:missing.txt", "missing.txt: cannot be read"),
        ("metrics:http://127.0.0.1:9/metrics", "cannot be read"),
    ],
)
def test_invalid_service_times_are_refused(text: str, sentence: str) -> None:
    with pytest.raises(Wrong, match=f"^--service: .*{sentence}"):
        service_times.read(text, "--service")


@pytest.mark.parametrize(
    ("content", "sentence"),
    [("", "has no task"), ("10,0\n", "has no task"), ("20,1\n10,1\n", "must increase"), ("a,b\n1,x\n", "rows")],
)
def test_invalid_histograms_are_refused(content: str, sentence: str, tmp_path: Path) -> None:
    (tmp_path / "times.csv").write_text(content)
    with pytest.raises(Wrong, match=sentence):
        service_times.read(f"histogram:{tmp_path / 'times.csv'}", "--service")
