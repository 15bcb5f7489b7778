"""A missing program, or a cluster that does not answer, is one sentence that says what to do."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from ops import pins, tools
from ops.command import ROOT

VERBS = {
    "make secrets": ("ops.secrets",),
    "make platform": ("ops.platform",),
    "make deploy": ("ops.deploy", "up"),
    "make undeploy": ("ops.deploy", "down"),
    "make flux": ("ops.flux",),
    "make rabbitmq-ui CLUSTER=1": ("ops.rabbitmq_ui", "--cluster"),
}
each_verb = pytest.mark.parametrize("command", VERBS.values(), ids=VERBS)


def said(*command: str, lines: int = 1, **environment: str) -> str:
    """Run a command that fails; returns the last line of its stderr, which must have `lines` lines."""
    done = subprocess.run(
        [sys.executable, "-m", *command],
        cwd=ROOT, env=os.environ | environment, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    *before, line = done.stderr.splitlines()
    assert len(before) == lines - 1
    return line


@each_verb
def test_missing_cluster_is_one_sentence(command: tuple[str, ...], tmp_path: Path) -> None:
    line = said(*command, KUBECONFIG=str(tmp_path / "none"))
    assert line == "kubectl points to no cluster: start one, or select one with `kubectl config use-context`."


@each_verb
def test_cluster_that_does_not_answer_is_one_sentence(command: tuple[str, ...], tmp_path: Path) -> None:
    entries = {
        "contexts": [{"name": "mine", "context": {"cluster": "mine", "user": "me"}}],
        "clusters": [{"name": "mine", "cluster": {"server": "https://127.0.0.1:1"}}],
        "users": [{"name": "me", "user": {"token": "abc"}}],
    }
    config = {"apiVersion": "v1", "kind": "Config", "current-context": "mine", **entries}
    (tmp_path / "config").write_text(yaml.safe_dump(config))
    line = said(*command, KUBECONFIG=str(tmp_path / "config"))
    assert line.startswith("The cluster of the context mine does not answer (The connection to the server 127.0.0.1:1")
    assert line.endswith("start it, or select another one with `kubectl config use-context`.")


def test_missing_overlay_is_named() -> None:
    assert said("ops.deploy", "up", "lokal") == "There is no overlay lokal: set OVERLAY to one of load, local."


def test_missing_git_is_one_sentence(tmp_path: Path) -> None:
    assert said("ops.release", "1.2.3", PATH=str(tmp_path)) == "git is not installed, or not on the PATH."


@pytest.mark.parametrize("program", pins.PROGRAMS)
def test_program_that_cannot_be_built_is_one_sentence(program: str, tmp_path: Path) -> None:
    """Without the Go module proxy, and with an empty cache."""
    script = f"import ops.command as r, ops.tools as t; r.command_line(lambda: print(t.built({program!r})))"
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=ROOT, capture_output=True, text=True, timeout=120, check=False,
        env=os.environ | {"SLUICE_CACHE": str(tmp_path), "GOMODCACHE": str(tmp_path / "go"), "GOPROXY": "off"}
        | {"PATH": f"{tmp_path}:{os.environ['PATH']}"},
    )  # fmt: skip
    building, sentence = done.stderr.splitlines()
    assert building.startswith(f"Building {program}")
    assert sentence.endswith("the first build needs the Go module proxy.")


GO = """#!/bin/sh
case "$1" in
    mod) exec {go} "$@" ;;
    env) exec {go} "$@" ;;
    build) echo "$@" >> {asked}; {end} ;;
esac
"""


def stub_go(folder: Path, end: str) -> dict[str, str]:
    """Return an environment whose Go only records what it should build, ends with `end`, and uses its own folder."""
    (folder / "bin").mkdir()
    stub = folder / "bin" / "go"
    stub.write_text(GO.format(go=tools._go_program(), asked=folder / "asked", end=end))  # noqa: SLF001 - the real one
    stub.chmod(0o755)
    return {"SLUICE_CACHE": str(folder / "cache"), "PATH": f"{stub.parent}:{os.environ['PATH']}"}


def test_validation_builds_only_kubeconform(tmp_path: Path) -> None:
    environment = stub_go(tmp_path, 'touch "$5"')
    done = subprocess.run(
        [sys.executable, "-m", "ops.validate.schemas"],
        cwd=ROOT, env=os.environ | environment, capture_output=True, text=True, timeout=170, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert [line.split()[-1] for line in (tmp_path / "asked").read_text().splitlines()] == [
        pins.PROGRAMS["kubeconform"][0]
    ]
    assert done.stderr.startswith("Building kubeconform")


def test_full_disk_is_reported_instead_of_a_missing_proxy(tmp_path: Path) -> None:
    environment = stub_go(tmp_path, "echo 'link: write /tmp/a.out: no space left on device' >&2; exit 1")
    line = said("ops.validate.schemas", **environment, lines=2)
    assert line.endswith("no space left on device): free space or fix the permissions there, and run this again.")


def test_missing_kubectl_is_one_sentence(tmp_path: Path) -> None:
    """Runs with a Python that has no kubectl next to it, as before `make install`."""
    python = tmp_path / "python"
    python.symlink_to(sys.executable)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    done = subprocess.run(
        [python, "-m", "ops.secrets"],
        cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.stderr == f"kubectl is missing from {tmp_path}: run `make install`.\n"
    assert shutil.which("kubectl", path=str(tmp_path)) is None
