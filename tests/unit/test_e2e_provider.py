"""Into which cluster of somebody's the cluster tests go, and how their images get there."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest

from deploy.run import Unusable
from tests.e2e import apps
from tests.e2e.cluster import existing
from tests.e2e.cluster.existing import Existing
from tests.e2e.platform import install

RECORDING = """#!/bin/sh
echo "$(basename "$0") $*" >> "$(dirname "$0")/said"
"""


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of programs that only note what they were told, first on the PATH."""
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
def test_images_are_loaded_by_the_clusters_own_program(programs: Path, context: str, command: str) -> None:
    Existing(context).load_image(Path("/a.tar"))
    assert (programs / "said").read_text() == f"{command}\n"


def test_any_other_cluster_is_refused_before_it_is_asked_anything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(existing, "KUBECONFIG", tmp_path / "copy")
    with pytest.raises(Unusable, match="images get into the cluster of production: use kind, k3d or docker-desktop"):
        Existing("production").start()
    assert not (tmp_path / "copy").exists()


def test_cluster_that_does_not_answer_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_images_are_kept_by_the_base_that_they_were_built_on(programs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLUICE_CACHE", str(programs / "cache"))
    for base in ("one", "two", "one"):
        monkeypatch.setenv("BASE", base)
        apps.built("1", local_base=False)
    bases = [word for word in (programs / "said").read_text().split() if word.startswith("BASE=")]
    assert bases == ["BASE=one", "BASE=one", "BASE=two", "BASE=two"]


class Answering(BaseHTTPRequestHandler):
    """Has nothing, and says so in the name of its class."""

    def do_GET(self) -> None:
        self.send_error(404)

    def version_string(self) -> str:
        return type(self).__name__

    def log_message(self, *_: object) -> None:
        """Nothing."""


class nginx(Answering):  # noqa: N801 - as it calls itself
    pass


@contextmanager
def answering(handler: type[Answering]) -> Iterator[str]:
    """The address of a server."""
    with HTTPServer(("127.0.0.1", 0), handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()


def test_entrance_is_where_nginx_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    with answering(nginx) as url:
        monkeypatch.setenv("E2E_ENTRANCE", url)
        install.reach(Existing("kind-mine"))


def test_entrance_of_somebody_else_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(install, "ENTRANCE_TIMEOUT_S", 0)
    with answering(Answering) as url:
        monkeypatch.setenv("E2E_ENTRANCE", url)
        with pytest.raises(Unusable, match=f"NGINX does not answer at {url}"):
            install.reach(Existing("kind-mine"))
    with pytest.raises(Unusable, match="E2E_ENTRANCE="):
        install.reach(Existing("kind-mine"))
