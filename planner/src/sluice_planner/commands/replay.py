"""`sluice replay`: a recorded curve against its prediction."""

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from sluice_planner import options

if TYPE_CHECKING:
    from sluice_planner.prediction import Compared, Replayed

NAME = "replay"
HELP = "predict a recorded burst and compare; exit status 1 if the prediction is off"
OFF = 1


def add(parser: argparse.ArgumentParser) -> None:
    """Add the options. The recording contains the arrivals, so there is no `--arrivals`."""
    parser.add_argument("overlay", help="the deployed overlay: a folder that Kustomize renders, a rendered file, or -")
    parser.add_argument(
        "curve", type=Path, metavar="CURVE.json", help="a recording, or the answer to a Prometheus range query"
    )
    parser.add_argument("--service", metavar="WHAT", help="service time as for simulate; default: the recording's")
    options.add_cluster(parser, sync=None)
    options.add_reading(parser)
    parser.add_argument("--json", action="store_true", help="print the comparison as JSON")
    parser.add_argument("--png", type=Path, metavar="FILE", help="write the picture, as .png, .svg or .pdf")


def run(arguments: argparse.Namespace) -> int:
    """Predict the recorded burst and print the comparison."""
    from sluice_planner import curve, inputs, prediction, service_times
    from sluice_planner.fields import Wrong

    recorded = curve.read(arguments.curve)
    found = inputs.workloads(arguments.overlay, arguments)
    if len(found) != 1:
        raise Wrong(f"{arguments.overlay}: must have one ScaledObject, as a recording is of one; it has {len(found)}")
    if arguments.sync is None:
        arguments.sync = str(recorded.sync_s or 15)
    if arguments.service is None and recorded.service_s is None:
        raise Wrong(f"{arguments.curve}: service_s: is missing: add it, or use --service")
    took = (
        service_times.constant(recorded.service_s or 0.0)
        if arguments.service is None
        else service_times.read(arguments.service, "--service")
    )
    workload = prediction.settle(found[0], recorded)
    replayed = prediction.replay(workload, recorded, took, inputs.cluster(arguments))
    if arguments.png:
        from sluice_planner import figure

        figure.write(arguments.png, figure.replayed(recorded, replayed))
    print(json.dumps(_data(replayed)) if arguments.json else _told(replayed))
    return 0 if all(each.good for each in replayed.times) else OFF


def _told(replayed: "Replayed") -> str:
    from sluice_planner.text_report import table

    head = ("", "measured", "predicted", "from", "to", "off", "allowed", "")
    rows = [_row(each) for each in replayed.times]
    depth, ready = f"{replayed.depth_error:.1%} of its highest", f"{replayed.ready_error:.1%} of max"
    errors = f"off on average: depth by {depth}, ready replicas by {ready}"
    return "\n".join([*table([head, *rows]), errors])


def _row(each: "Compared") -> tuple[str, ...]:
    known = [predicted for predicted in each.predicted_s if predicted is not None]
    off = "" if each.mean_s is None or each.measured_s is None else f"{each.mean_s - each.measured_s:+.1f} s"
    return (
        each.words,
        _time(each.measured_s),
        _time(each.mean_s),
        _time(min(known, default=None)),
        _time(max(known, default=None)),
        off,
        f"{each.allowed_s:.1f} s",
        "good" if each.good else "OFF",
    )


def _time(time_s: float | None) -> str:
    return "never" if time_s is None else f"{time_s:.1f} s"


def _data(replayed: "Replayed") -> dict[str, object]:
    times = [
        {
            "what": each.words,
            "measured_s": each.measured_s,
            "predicted_s": each.mean_s,
            "allowed_s": each.allowed_s,
            "good": each.good,
        }
        for each in replayed.times
    ]
    return {"times": times, "depth_error": replayed.depth_error, "ready_error": replayed.ready_error}
