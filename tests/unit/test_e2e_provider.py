"""Clusters for the tests on a cluster: existing clusters, their image loading, and KUBECONFIG."""

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest

from minicluster.lifecycle import Minicluster
from ops.command import Unusable
from tests.e2e import existing, provider
from tests.e2e.existing import Existing, check_entrance

RECORDING = """#!/bin/sh
echo "$(basename "$0") $*" >> "$(dirname "$0")/said"
"""


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder, first on the PATH, with programs that only record their arguments."""
    for name in ("kind", "k3d", "docker"):
        (tmp_path / name).write_text(RECORDING)
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    return tmp_path


@pytest.mark.parametrize(
    ("context", "command"),
    [
        ("kind-kind", "kind load image-archive /a.tar --name=kind"),
        ("kind-two-words", "kind load image-archive /a.tar --name=two-words"),
        ("k3d-mine", "k3d image import /a.tar --cluster=mine"),
        ("docker-desktop", "docker load --input=/a.tar"),
    ],
)
def test_image_is_loaded_by_the_program_of_the_cluster(programs: Path, context: str, command: str) -> None:
    Existing(context).load_image(Path("/a.tar"))
    assert (programs / "said").read_text() == f"{command}\n"


def test_unknown_kind_of_cluster_is_refused_before_any_request(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(existing, "KUBECONFIG", tmp_path / "copy")
    with pytest.raises(Unusable, match="images get into the cluster of production: use kind, k3d or docker-desktop"):
        Existing("production").start()
    assert not (tmp_path / "copy").exists()


def test_unreachable_or_unknown_cluster_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "contexts": [{"name": "kind-mine", "context": {"cluster": "mine"}}],
        "clusters": [{"name": "mine", "cluster": {"server": "http://127.0.0.1:1"}}],
    }
    (tmp_path / "config").write_text(json.dumps(config))
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "config"))
    monkeypatch.setattr(existing, "KUBECONFIG", tmp_path / "copy")
    with pytest.raises(Unusable, match=r"127\.0\.0\.1:1 was refused"):
        Existing("kind-mine").start()
    with pytest.raises(Unusable, match="kind-other"):
        Existing("kind-other").start()


class Answering(BaseHTTPRequestHandler):
    """A server that answers 404; its Server header is the name of the class."""

    def do_GET(self) -> None:
        self.send_error(404)

    def version_string(self) -> str:
        return type(self).__name__

    def log_message(self, *_: object) -> None:
        """Log nothing."""


class nginx(Answering):  # noqa: N801 - the name in NGINX's Server header
    pass


@contextmanager
def answering(handler: type[Answering]) -> Iterator[str]:
    """Run a server; yields its URL."""
    with HTTPServer(("127.0.0.1", 0), handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()


def test_entrance_answered_by_nginx_is_accepted(monkeypatch: pytest.MonkeyPatch) -> None:
    with answering(nginx) as url:
        monkeypatch.setenv("E2E_ENTRANCE", url)
        check_entrance(Existing("kind-mine").entrance)


def test_entrance_answered_by_another_server_or_none_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(existing, "ENTRANCE_TIMEOUT_S", 0)
    with answering(Answering) as url:
        monkeypatch.setenv("E2E_ENTRANCE", url)
        with pytest.raises(Unusable, match=f"NGINX does not answer at {url}"):
            check_entrance(Existing("kind-mine").entrance)
    with pytest.raises(Unusable, match="E2E_ENTRANCE="):
        check_entrance(Existing("kind-mine").entrance)


class Named(Minicluster):
    """A cluster that only has a name and a kubeconfig."""

    def start(self) -> Path:
        return self.kubeconfig


class Stuck(Named):
    """A cluster whose stop fails."""

    def stop(self) -> None:
        raise Unusable("it stays")


def test_kubeconfig_is_restored_before_the_cluster_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", "somebody's")
    stuck = Stuck(tmp_path)
    with pytest.raises(Unusable, match="it stays"), provider.started(stuck):
        assert (os.environ["KUBECONFIG"], provider.STARTED) == (str(stuck.kubeconfig), [stuck])
    assert (os.environ["KUBECONFIG"], provider.STARTED) == ("somebody's", [])


def test_make_uses_the_started_cluster_and_not_the_kubeconfig_of_an_outer_make(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "Makefile").write_text("all:\n\t@echo $$KUBECONFIG\n")
    monkeypatch.setenv("MAKEFLAGS", " -- KUBECONFIG=somebody's")  # set by `make e2e KUBECONFIG=somebody's`
    with provider.started(Named(tmp_path / "state")):
        said = subprocess.run(["make", "--silent"], cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    assert said == f"{tmp_path}/state/kubeconfig\n"
