"""One cluster with one platform for the whole run; each module has the overlay that it asks for."""

from collections.abc import Generator, Iterator

import pytest

from deploy import cluster as api
from deploy import overlay
from deploy.images import deployed
from tests.e2e import apps, burst, evidence, objects
from tests.e2e.burst import Aside, Burst
from tests.e2e.cluster.bare import Bare
from tests.e2e.cluster.provider import STARTED, Provider, chosen, started
from tests.e2e.platform import install
from tests.e2e.system import System, entered

# They leave the workers and their queue alone, or have a cluster of their own: they run while a burst takes 450 s under
# the original's numbers.
BESIDE = ("flux", "cluster", "existing", "admission", "keda", "network")
ORDER = ("local", "ingress", "scaling", *BESIDE, "original", "rollout", "load", "trouble", "fallback")
TEST_TIMEOUT_S = 1200


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Modules in their order; a test has the time that a cluster takes, not that of a unit."""
    here = [item for item in items if item.path.parent == evidence.HERE]
    here.sort(key=lambda item: ORDER.index(_part(item)))
    items[:] = [item for item in items if item not in here] + here
    for item in here:
        if not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(TEST_TIMEOUT_S))
    if {"scaling", "original"} <= set(map(_part, here)):  # one burst after the other, even if the first fails
        for item in here:
            if _part(item) in BESIDE and isinstance(item, pytest.Function):
                item.fixturenames.insert(0, "original")  # before what changes KUBECONFIG


def _part(item: pytest.Item) -> str:
    return item.path.stem.removeprefix("test_")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Keep what the cluster looked like when a test failed."""
    report = yield
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
    for archive in apps.built(version, local_base=isinstance(provider, Bare)):
        provider.load_image(archive)
    install.install(provider, objects.kubeconfig())
    return provider


@pytest.fixture(scope="session")
def system(platform: Provider) -> Iterator[System]:
    """The system's clients' view. What runs is the business of `load` and of its like."""
    with entered(platform.entrance) as running:
        yield running


@pytest.fixture(scope="module")
def local(system: System) -> System:
    """The local overlay as `make deploy` applies it: when that is back, everything is ready."""
    overlay.up(objects.LOCAL)
    return system


@pytest.fixture(scope="module")
def load(system: System) -> System:
    """The load overlay, at rest with its two workers."""
    objects.apply(objects.OVERLAYS / "load")
    for each in (objects.API, objects.RECORDER, objects.WORKER):
        objects.rolled_out(each)
    objects.settled(objects.WORKER, 2)
    system.forget()
    return system


@pytest.fixture(scope="session")
def running(system: System) -> System:
    """Whatever overlay runs, and the load overlay if none does: for tests that only need one."""
    if not api.has("scaledobjects.keda.sh", objects.SCALER[2], f"--namespace={objects.SCALER[0]}"):
        overlay.up(objects.OVERLAYS / "load")
    return system


@pytest.fixture(scope="session")
def scaled(system: System, platform: Provider) -> Burst:
    """A burst under the load overlay."""
    seen = burst.seen_through(system, "load")
    seen.recorder.write(burst.CURVE, platform.hpa_sync_s)
    return seen


@pytest.fixture(scope="session")
def original(system: System) -> Iterator[Aside]:
    """The same burst under the original's numbers, begun."""
    aside = Aside("original", system.entrance)
    yield aside
    aside.end()  # where nobody has waited for it
