"""`python -m tests.chaos SCENARIO [--seed N] [--without PROTECTION]`: one run, written to build/chaos/<name>/.

Exit status: 0 without findings and with all bounds kept, 1 otherwise, 2 if the run could not be made.
"""

import argparse
import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from ops import command, files
from ops.apt import apt_install
from ops.command import Unusable
from ops.servers import newer
from ops.servers.child import until as wait_until
from ops.servers.programs import ensure
from tests.chaos import bounds, namespaces, report, versions
from tests.chaos.bounds import Bound
from tests.chaos.checker import Checker
from tests.chaos.history import HISTORY_FILE, History, collect, save, saved
from tests.chaos.nemesis import Nemesis
from tests.chaos.scenarios import SCENARIOS, Scenario
from tests.chaos.weakened import PROTECTIONS
from tests.chaos.world import FAULTS_FILE, World, faketime, running

CLIENTS_END_S = 240.0
WARM_S = 4.0
UNUSABLE = 2
ABOUT_FILE = "about.json"


def main() -> int:
    """Run a scenario in its own namespaces, and print the report."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description="Check that faults lose no task.")
    parser.add_argument("scenario", choices=SCENARIOS)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--without", choices=PROTECTIONS, default="", help="disable a protection")
    parser.add_argument("--folder", type=Path, help="where to write (default: build/chaos/<scenario>-<seed>)")
    parser.add_argument("--again", action="store_true", help="check only the results of an earlier run in the folder")
    options = parser.parse_args()
    scenario = SCENARIOS[options.scenario]
    name = f"{options.scenario}-{options.seed}" + (f"-without-{options.without}" if options.without else "")
    folder = (options.folder or Path("build/chaos") / name).absolute()
    if options.again:
        return _report(folder, saved(folder), json.loads((folder / ABOUT_FILE).read_text()), scenario.bounds)
    try:
        if not namespaces.inside():
            return _enter(folder, scenario)
        namespaces.enter("tests.chaos", [])
        return _run(scenario, folder, options.seed, options.without)
    except (Unusable, RuntimeError) as exc:
        print(exc, file=sys.stderr)
    except (OSError, EOFError, AssertionError, subprocess.SubprocessError) as exc:
        print(f"The run was aborted without a result: {exc!r}. Its files are in {folder}.", file=sys.stderr)
    return UNUSABLE


def _enter(folder: Path, scenario: Scenario) -> int:
    """Prepare, run the rest in namespaces, and exit with its status; returns UNUSABLE if that cannot start."""
    try:
        with _locked(folder):
            _empty(folder)
            _prepare(scenario, folder)
            namespaces.enter("tests.chaos", sys.argv[1:])  # waits for the end
    except command.REFUSAL as exc:
        print(command.sentence(exc), file=sys.stderr)
    return UNUSABLE


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Lock a run's folder. Unusable if another run has it."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with ExitStack() as ends:
        try:
            ends.enter_context(files.locked(folder.with_name(f".{folder.name}.lock")))
        except BlockingIOError:
            raise Unusable(f"Another run writes to {folder}: wait for its end, or name another by --folder.") from None
        yield


def _empty(folder: Path) -> None:
    """Remove the files of an earlier run. Unusable if the folder contains something else."""
    if not folder.exists():
        return
    if not folder.is_dir() or (any(folder.iterdir()) and not (folder / FAULTS_FILE).exists()):
        raise Unusable(f"{folder} is not the folder of a run: name another one by --folder, or remove it yourself.")
    shutil.rmtree(folder)


def _prepare(scenario: Scenario, folder: Path) -> None:
    """Do everything that needs the network or the clone's history, before the namespaces exist."""
    if any(each.kind == "old-api" for step in scenario.steps(1) for each in step.faults):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / FAULTS_FILE).touch()  # allows the next run to remove the folder
        versions.check_out(folder / "older")
    ensure()
    try:
        faketime()
    except Unusable:
        apt_install(["libfaketime"])
    if scenario.setup.newer:
        newer.ensure()


def _run(scenario: Scenario, folder: Path, seed: int, without: str) -> int:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / FAULTS_FILE).touch()  # allows the next run to remove the folder
    started_s = time.monotonic()
    with running(folder, scenario.setup, without) as world:
        about: dict[str, Any] = {
            "scenario": scenario.name, "seed": seed, "without": without, "nodes": scenario.setup.nodes,
            "rabbitmq": ".".join(map(str, world.cluster.nodes[0].version)),
            "redis": ".".join(map(str, world.redis.version)),
        }  # fmt: skip
        print(f"Ready after {time.monotonic() - started_s:.0f} s: RabbitMQ {about['rabbitmq']}, {folder}", flush=True)
        world.start_clients(seed)
        time.sleep(WARM_S)
        nemesis = Nemesis(world, scenario.recovery_s)
        nemesis.run(scenario.steps(seed))
        world.clients.signal(signal.SIGTERM)
        wait_until(lambda: _ended(world, nemesis), CLIENTS_END_S, "the clients' last answers")
        history = collect(world, scenario.drain_s)
    save(history, folder / HISTORY_FILE)
    about["seconds"] = round(time.monotonic() - started_s)
    (folder / ABOUT_FILE).write_text(json.dumps(about))
    return _report(folder, history, about, scenario.bounds)


def _report(folder: Path, history: History, about: dict[str, Any], of: Mapping[str, Bound]) -> int:
    findings = Checker(history).findings()
    outcome = report.result(history, findings, **about)
    report.write(folder, outcome, findings)
    print("\n".join(report.lines(outcome, findings)))
    if not of:
        return bool(findings)
    measured = bounds.rows(history, of)
    table = "\n".join(bounds.lines(measured))
    (folder / "abuse.md").write_text(table + "\n")
    print(f"\n{table}")
    return bool(findings) or any(row.broken for row in measured)


def _ended(world: World, nemesis: Nemesis) -> bool:
    nemesis.look_after()
    if world.clients.alive:
        return False
    nemesis.note_clients()
    return True


if __name__ == "__main__":
    sys.exit(main())
