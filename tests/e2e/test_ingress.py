"""NGINX as the local overlay's Ingress configures it for the API."""

import http.client
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from urllib.parse import urlsplit

import httpx

from ops.servers.child import until
from tests.e2e import objects
from tests.e2e.system import System, example

TIMEOUT_S = 10
RELOAD_TIMEOUT_S = 60
MIB = 1024 * 1024
CLIENTS = 16
# kustomize/base/ingress: 100 requests per second, and a burst of 200
RATE = 100
BURST = 200
REQUESTS = 960


def entrance(local: System) -> httpx.Client:
    headers = {"Host": local.host, "Authorization": f"Bearer {local.key}", "Content-Type": "application/json"}
    return httpx.Client(base_url=local.entrance, headers=headers, timeout=TIMEOUT_S)


def test_metrics_are_not_reachable_from_outside(local: System) -> None:
    with entrance(local) as client:
        assert client.get("/metrics").status_code == 404
        assert client.get("/livez").status_code == 200


def test_other_hosts_get_404(local: System) -> None:
    for host in ("tasks.example.com", urlsplit(local.entrance.replace("localhost", "127.0.0.1")).netloc):
        assert httpx.get(f"{local.entrance}/livez", headers={"Host": host}, timeout=TIMEOUT_S).status_code == 404


def test_api_refuses_too_large_body_and_nginx_only_one_above_2_mib(local: System) -> None:
    with entrance(local) as client:
        by_the_api = client.post("/tasks", content=b" " * (MIB + MIB // 2))
        by_nginx = client.post("/tasks", content=b" " * (2 * MIB + 1))
    assert (by_the_api.status_code, by_the_api.headers["Content-Type"]) == (413, "application/problem+json")
    assert (by_nginx.status_code, by_nginx.headers["Content-Type"]) == (413, "text/html")


def test_events_are_sent_without_buffering(local: System) -> None:
    with entrance(local) as client:
        task = client.post("/tasks", json=example()).json()["task_id"]
        with client.stream("GET", f"/tasks/{task}/events") as events:
            lines = events.iter_lines()
            seen = {line: time.monotonic() for line in lines if line.startswith("event:")}
    # the task takes seconds between the two events; a buffered event would arrive together with the next one
    assert seen["event: SUCCESS"] - seen["event: STARTED"] > 1


def test_reload_of_nginx_for_changed_pods_loses_no_request_of_a_busy_connection(local: System) -> None:
    # http.client and not httpx, which checks whether a connection was closed before it sends
    with closing(http.client.HTTPConnection(urlsplit(local.entrance).netloc, timeout=TIMEOUT_S)) as connection:

        def told_to_leave() -> bool:
            """Send one more request on the same connection; whether the answer closes the connection."""
            connection.request("GET", "/livez", headers={"Host": local.host})
            response = connection.getresponse()
            response.read()
            assert response.status == 200
            return response.will_close

        assert not told_to_leave()
        try:
            for count in (2, 1):
                objects.scale(objects.API, count)
                until(told_to_leave, RELOAD_TIMEOUT_S, f"the reload for {count} pods")
        finally:
            objects.scale(objects.API, 1)
        objects.settled(objects.API, 1)


def test_client_above_the_rate_limit_gets_429(local: System) -> None:
    with entrance(local) as client, ThreadPoolExecutor(CLIENTS) as many:
        began = time.monotonic()
        answers = Counter(many.map(lambda _: client.get("/livez").status_code, range(REQUESTS)))
        took_s = time.monotonic() - began
        assert answers.keys() == {200, 429}
        assert BURST <= answers[200] <= BURST + RATE * took_s + 1
        until(lambda: client.get("/livez").status_code == 200, TIMEOUT_S, "the end of the refusal")
