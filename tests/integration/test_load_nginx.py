"""The NGINX of `make load`, in front of the API processes."""

import http.client
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import psutil
import pytest

from ops.servers.nginx import Nginx
from tests.harness.clone import left
from tests.harness.system import Api, System, until

REQUESTS = 20


@pytest.fixture
def front(shared: System, tmp_path: Path) -> Iterator[tuple[Nginx, list[Api]]]:
    apis = [shared.api(), shared.api()]
    nginx = Nginx(tmp_path, [int(api.url.rpartition(":")[2]) for api in apis], open_files=1000)
    with ExitStack() as ends:
        ends.callback(nginx.stop)
        nginx.start()
        yield nginx, apis


def test_requests_of_one_connection_are_balanced_over_all_apis(front: tuple[Nginx, list[Api]]) -> None:
    nginx, apis = front
    connection = http.client.HTTPConnection(nginx.url.removeprefix("http://"), timeout=20)
    headers = {"Authorization": apis[0].client.headers["Authorization"], "Content-Type": "application/json"}
    answers: Counter[int] = Counter()
    for number in range(REQUESTS):
        connection.request("POST", "/tasks", f'{{"task": "first", "name": "{number}"}}', headers)
        response = connection.getresponse()
        response.read()
        answers[response.status] += 1
    connection.close()
    assert answers == {202: REQUESTS}
    assert [api.metric("sluice_accepted_total") for api in apis] == [REQUESTS / 2] * 2


def test_operator_endpoints_are_not_reachable(front: tuple[Nginx, list[Api]]) -> None:
    nginx, _ = front
    for path, status in (("/metrics", 404), ("/readyz", 404), ("/healthz", 404), ("/livez", 200)):
        connection = http.client.HTTPConnection(nginx.url.removeprefix("http://"), timeout=20)
        connection.request("GET", path)
        assert connection.getresponse().status == status
        connection.close()


def test_settings_are_those_of_the_cluster(front: tuple[Nginx, list[Api]]) -> None:
    """The release's entries, and before them the annotations of the API's Ingress."""
    nginx, _ = front
    text = (nginx.folder / "nginx.conf").read_text()
    for line in (
        "worker_connections 16384;", "keepalive_timeout 75s;", "client_max_body_size 2m;", "proxy_read_timeout 60s;",
        "proxy_buffering off;",
    ):  # fmt: skip
        assert line in text


def test_stop_ends_all_processes(front: tuple[Nginx, list[Api]]) -> None:
    nginx, _ = front
    parent = psutil.Process(nginx.node.pid)
    # NGINX listens before it forks its worker
    processes = [parent, *until(parent.children, what="NGINX's worker")]
    assert len(processes) == 2
    nginx.stop()
    until(lambda: not left(processes), 10, "the end of every process")
