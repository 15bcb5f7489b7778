"""Scale-down and rolling update at the same time under load: no task is lost or repeated, no request fails."""

from collections.abc import Callable

import pytest

from minicluster import app_images
from minicluster.lifecycle import Minicluster
from tests.e2e import objects
from tests.e2e.clients import Strict
from tests.e2e.provider import Provider
from tests.e2e.system import System

# 5 s each. KEDA keeps 30 workers, at ten tasks each, while more than 290 tasks are left, and about 150 tasks end while
# the workers start. A hundred more give 30 workers work for half a minute when the scale-down begins.
TASKS = 550
MAXIMUM = 30
SCALE_TIMEOUT_S = 240
DRAIN_TIMEOUT_S = 600


def set_image(name: objects.Name, image: str) -> None:
    objects.patch(name, [{"op": "replace", "path": "/spec/template/spec/containers/0/image", "value": image}])


@pytest.fixture
def release(load: System, platform: Provider, version: str) -> str:  # noqa: ARG001 - the overlay must be applied first
    """Import the images of a newer version into the nodes; returns their tag."""
    newer = f"{version}-next"
    for archive in app_images.built(newer, local_base=isinstance(platform, Minicluster)):
        platform.load_image(archive)
    return newer


def test_scale_down_and_new_version_lose_nothing(
    load: System, release: str, record_property: Callable[[str, object], None]
) -> None:
    ids = load.post([f"long-{number}" for number in range(TASKS)], task="counted_long")
    objects.until(lambda: objects.replicas(objects.WORKER)[0] == MAXIMUM, SCALE_TIMEOUT_S, "30 ready workers")
    with Strict(load, "during") as clients:
        busy = load.finished()
        objects.set_maximum(2)
        set_image(objects.WORKER, f"sluice-worker:{release}")
        set_image(objects.API, f"sluice-api:{release}")
        objects.rolled_out(objects.API)
        objects.rolled_out(objects.WORKER)
        objects.settled(objects.WORKER, 2)
        assert busy < TASKS  # tasks were open when the scale-down began
        assert load.finished() < TASKS + len(clients.accepted)
    objects.set_maximum(MAXIMUM)
    accepted = {**dict.fromkeys(ids), **clients.accepted}

    assert clients.failures == []
    assert len(clients.accepted) > 0
    load.drained(len(accepted), DRAIN_TIMEOUT_S)
    assert load.states(list(accepted), timeout_s=60) == {"SUCCESS"}
    assert set(load.effects().values()) == {1}
    assert set(load.begun().values()) == {1}  # a task that was killed and repeated would have begun twice
    images = {
        each["spec"]["containers"][0]["image"] for name in (objects.API, objects.WORKER) for each in objects.pods(name)
    }
    assert images == {f"sluice-api:{release}", f"sluice-worker:{release}"}
    record_property("requests during the update", 2 * len(clients.accepted))
    record_property("slowest of them, seconds", round(clients.slowest_s, 2))
