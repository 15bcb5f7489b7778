"""One cluster with one platform for all tests of a process; each module has the overlay that it asks for."""

from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from ops import cluster as api
from ops import deploy
from ops.command import Unusable
from ops.images import deployed
from tests.e2e import apps, burst, evidence, lanes, objects
from tests.e2e.burst import Aside, Burst
from tests.e2e.cluster.bare import Bare
from tests.e2e.cluster.provider import STARTED, Provider, chosen, started
from tests.e2e.platform import install
from tests.e2e.system import System, entered
from tests.e2e.told import Told

TEST_TIMEOUT_S = 1200
LOAD = Told("load")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Modules in their order; a test has the time that a cluster takes, not that of a unit."""
    here = [item for item in items if item.path.parent == evidence.HERE]
    here.sort(key=lambda item: lanes.ORDER.index(_part(item)))
    items[:] = [item for item in items if item not in here] + here
    for item in here:
        if not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(TEST_TIMEOUT_S))
    # one burst after the other, even if the first fails; or beside it, on another cluster
    if {"scaling", "original"} <= set(map(_part, here)) or lanes.apart():
        for item in here:
            if _part(item) in lanes.BESIDE and isinstance(item, pytest.Function):
                patience = ["patience"] if _part(item) in lanes.PATIENT else []
                item.fixturenames[:0] = ["original", *patience]  # before what changes KUBECONFIG


def _part(item: pytest.Item) -> str:
    return item.path.stem.removeprefix("test_")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Keep what the cluster looked like when a test failed."""
    report = yield
    if report.failed and _part(item) == "scaling" and not LOAD.told:
        LOAD.tell(None)  # else the other lane would wait for it
    if report.failed and STARTED:  # else KUBECONFIG may name anybody's
        evidence.collect(item.name)
    return report


@pytest.fixture(scope="session")
def provider(pytestconfig: pytest.Config) -> Iterator[Provider]:
    """A cluster, said aloud before it is touched; from then on KUBECONFIG names it."""
    cluster = chosen()
    # pytest keeps what is said in a fixture to itself until a test fails
    with pytestconfig.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():
        print(f"\nThe tests use {cluster}.", flush=True)  # noqa: T201 - for who may want to stop it
    with started(cluster):
        yield cluster


@pytest.fixture(scope="session")
def version() -> str:
    """What the overlays deploy."""
    return deployed()["sluice-worker"].rpartition(":")[2]


@pytest.fixture(scope="session")
def platform(provider: Provider, version: str) -> Provider:
    """RabbitMQ, Redis, NGINX, KEDA and the Secrets; the project's images are in the nodes."""
    with ThreadPoolExecutor(1) as beside:  # what is installed mostly waits
        images = beside.submit(_load_images, provider, version)
        install.install(provider, objects.kubeconfig())
        images.result()
    try:
        install.reach(provider)
    except Unusable as exc:  # every test would only time out
        pytest.exit(str(exc), returncode=1)
    return provider


def _load_images(provider: Provider, version: str) -> None:
    for archive in apps.built(version, local_base=isinstance(provider, Bare)):
        provider.load_image(archive)


@pytest.fixture(scope="session")
def system(platform: Provider) -> Iterator[System]:
    """The system's clients' view. What runs is the business of `load` and of its like."""
    with entered(platform.entrance) as running:
        yield running


@pytest.fixture(scope="module")
def local(system: System) -> System:
    """The local overlay as `make deploy` applies it: when that is back, everything is ready."""
    deploy.up(objects.LOCAL)
    return system


@pytest.fixture(scope="module")
def load(system: System) -> Iterator[System]:
    """The load overlay, at rest with its two workers."""
    objects.apply(objects.OVERLAYS / "load")
    for each in (objects.API, objects.RECORDER, objects.WORKER):
        objects.rolled_out(each)
    objects.settled(objects.WORKER, burst.MINIMUM)
    system.forget()
    yield system
    # more of them go at once, and not after the minute for which the HPA would keep them for the next module
    objects.set_maximum(burst.MINIMUM)
    objects.settled(objects.WORKER, burst.MINIMUM)


@pytest.fixture(scope="session")
def running(system: System) -> System:
    """Whatever overlay runs, and the load overlay if none does: for tests that only need one."""
    if not api.has("scaledobjects.keda.sh", objects.SCALER[2], f"--namespace={objects.SCALER[0]}"):
        deploy.up(objects.OVERLAYS / "load")
    return system


@pytest.fixture(scope="session")
def scaled(system: System, platform: Provider) -> Burst:
    """A burst under the load overlay."""
    seen = burst.seen_through(system, "load")
    seen.recorder.write(burst.CURVE, platform.hpa_sync_s)
    return seen


@pytest.fixture(scope="session")
def scaled_drain_s(request: pytest.FixtureRequest) -> float:
    """How long that burst took; the other lane's, where there is one."""
    if lanes.apart():
        return LOAD.drain_s()
    scaled: Burst = request.getfixturevalue("scaled")
    return scaled.drain_s


@pytest.fixture(scope="session")
def patience() -> None:
    """The burst of the other lane, where there is one, is measured: what asks much of the machine waits for its end."""
    if lanes.apart():
        LOAD.over()


@pytest.fixture(scope="session")
def original(system: System) -> Iterator[Aside]:
    """The same burst under the original's numbers, begun."""
    aside = Aside("original", system.entrance)
    yield aside
    aside.end()  # where nobody has waited for it
