"""The parts of ops/ that need no server."""

import subprocess
import sys
from pathlib import Path

import pytest

from ops import demo
from ops.command import Unusable
from ops.servers import ports, programs
from ops.servers.endpoints import Endpoints, Folder, load_running, save
from ops.servers.inspection import management_of, vhost_of
from tests.harness.simple_tasks import TASKS

ENDPOINTS = Endpoints("http://127.0.0.1:8000", "127.0.0.1:1", None, None)

ROOT = Path(__file__).parents[2]


def test_demo_posts_one_of_each_task(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "TASKS", TASKS)
    assert demo.inputs() == [{"name": "abc", "task": "first"}, {"name": "abc", "task": "second"}]


def test_endpoints_are_found_while_the_folder_is_locked(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    with folder.locked():
        save(ENDPOINTS, folder.run)
        assert load_running(folder) == ENDPOINTS


def test_endpoints_of_a_killed_run_are_ignored(tmp_path: Path) -> None:
    save(ENDPOINTS, Folder(tmp_path).run)
    with pytest.raises(Unusable, match="start it with `make up`"):
        load_running(Folder(tmp_path))


def test_second_lock_of_a_folder_is_refused(tmp_path: Path) -> None:
    with Folder(tmp_path).locked(), pytest.raises(Unusable, match="already running"), Folder(tmp_path).locked():
        pass


@pytest.mark.parametrize(
    ("url", "management", "expected"),
    [
        ("amqp://u:p%40@host:5672/v", None, ("http://host:15672", "u", "p@")),
        ("amqp://u:p@host/v", "https://other:1/x", ("https://other:1/x", "u", "p")),
        ("amqp://u:p@host/v", "http://a:b%2F@other:1", ("http://other:1", "a", "b/")),
    ],
)
def test_management_api_is_derived_from_the_broker_url(
    url: str, management: str | None, expected: tuple[str, str, str]
) -> None:
    found = management_of(url, management)
    assert (found.url, found.user, found.password) == expected


@pytest.mark.parametrize(("path", "vhost"), [("", "/"), ("/", "/"), ("/%2F", "/"), ("/a%20b", "a b")])
def test_virtual_host_is_parsed_from_a_url(path: str, vhost: str) -> None:
    assert vhost_of(f"amqp://u:p@host{path}") == vhost


def test_unknown_program_is_not_found() -> None:
    assert programs.find("no-such-program") is None


TAKE = """
from itertools import chain
from ops.servers import ports
offered = chain([{taken}], range(10_000, 32_000))
ports.random.randrange = lambda *_: next(offered)
print(*ports.free_ports(1))
"""


def test_port_stays_reserved_while_nothing_listens() -> None:
    """Otherwise another process could take the port of a broker that a test has stopped."""
    (ours,) = ports.free_ports(1)
    code = TAKE.format(taken=ours)
    theirs = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert int(theirs) != ours
