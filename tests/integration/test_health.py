"""While the broker or Redis is down, the API stays ready, reports it, and answers every request itself."""

from typing import Any

import httpx
import pytest

from tests.harness.system import Api, System, until

SERVERS = {"broker": "rabbitmq", "redis": "redis"}
AWAY = pytest.mark.parametrize("away", ["kill", "suspend"])


def post(api: Api) -> httpx.Response:
    """Post with an Idempotency-Key, so that the request needs both servers."""
    return api.post("sleep", key="k")


def is_refused(answer: httpx.Response) -> bool:
    """Return whether the post was definitely refused. Its outcome is unknown until the API notices a silent broker."""
    problem = answer.json()
    assert answer.status_code == 503, answer.text
    assert int(answer.headers["Retry-After"]) > 0
    assert problem["type"] in {"urn:sluice:problem:refused", "urn:sluice:problem:outcome-unknown"}
    return bool(problem["type"] == "urn:sluice:problem:refused")


def health(api: Api) -> tuple[int, dict[str, Any]]:
    answer = api.client.get("/healthz")
    body = answer.json()
    return answer.status_code, {name: body[name] for name in SERVERS}


@AWAY
@pytest.mark.parametrize("name", SERVERS)
def test_replica_stays_ready_refuses_posts_and_names_the_missing_server(system: System, name: str, away: str) -> None:
    api = system.api()
    assert health(api) == (200, {"broker": "up", "redis": "up"})
    assert (api.metric("sluice_broker_up"), api.metric("sluice_redis_up")) == (1, 1)
    server = getattr(system.servers, SERVERS[name])
    getattr(server, away)()

    until(lambda: is_refused(post(api)), 30, "a definite refusal")
    other = next(each for each in SERVERS if each != name)
    until(lambda: health(api) == (503, {name: "down", other: "up"}), 10, f"/healthz without the {name}")
    assert api.client.get("/healthz").json()["detail"] == f"does not answer: {name}"
    assert (api.metric(f"sluice_{name}_up"), api.metric(f"sluice_{other}_up")) == (0, 1)
    assert (api.get("/livez"), api.get("/readyz")) == (200, 200)
    assert is_refused(post(api))

    server.resume()
    system.servers.restore()
    until(lambda: post(api).status_code == 202, 30, "an accepted post")
    until(lambda: health(api) == (200, {"broker": "up", "redis": "up"}), 10, "/healthz with both")
    assert (api.metric("sluice_broker_up"), api.metric("sluice_redis_up")) == (1, 1)
