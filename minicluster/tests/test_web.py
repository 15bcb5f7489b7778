"""The web server serves git clients and files."""

import os
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from minicluster.stand_ins import web

# requests to 127.0.0.1 must not go through a proxy of the machine
DIRECT = {"no_proxy": "127.0.0.1", "NO_PROXY": "127.0.0.1"}
ENVIRONMENT = os.environ | DIRECT | {"GIT_CONFIG_GLOBAL": "/dev/null", "GIT_TERMINAL_PROMPT": "0"}


def git(*arguments: str | Path) -> str:
    done = subprocess.run(["git", *arguments], capture_output=True, text=True, timeout=60, check=True, env=ENVIRONMENT)
    return done.stdout.strip()


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    """The URL of a server for tmp_path, with one empty repository that accepts pushes."""
    git("init", "--quiet", "--bare", "--initial-branch=main", tmp_path / "git" / "a.git")
    git("-C", tmp_path / "git" / "a.git", "config", "http.receivepack", "true")
    server = web.server("127.0.0.1", 0, tmp_path)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_pushed_commit_is_cloned(address: str, tmp_path: Path) -> None:
    clone = tmp_path / "clone"
    git("init", "--quiet", "--initial-branch=main", clone)
    (clone / "large").write_bytes(os.urandom(3_000_000))  # larger than git's buffer of 1 MiB, so git sends chunks
    git("-C", clone, "add", "large")
    git("-C", clone, "-c", "user.name=a", "-c", "user.email=a@localhost", "commit", "--quiet", "--message=a")
    git("-C", clone, "push", "--quiet", f"{address}/git/a.git", "main")
    git("clone", "--quiet", "--depth=1", f"{address}/git/a.git", tmp_path / "again")
    assert (tmp_path / "again" / "large").read_bytes() == (clone / "large").read_bytes()


def test_file_of_a_chart_is_served(address: str, tmp_path: Path) -> None:
    (tmp_path / "charts").mkdir()
    (tmp_path / "charts" / "index.yaml").write_text("entries: {}")
    assert httpx.get(f"{address}/charts/index.yaml", trust_env=False).text == "entries: {}"


def test_post_to_a_file_is_refused(address: str) -> None:
    assert httpx.post(f"{address}/charts/index.yaml", content=b"a", trust_env=False).status_code == 405
