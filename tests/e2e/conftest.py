"""One cluster with one platform for all tests of a process; each module deploys the overlay that it needs."""

import os
import time
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from minicluster import app_images
from minicluster.lifecycle import Minicluster
from minicluster.stand_ins import installation
from ops import cluster as api
from ops import deploy
from ops.command import Unusable
from ops.images import deployed
from tests.e2e import burst, evidence, objects
from tests.e2e.burst import Posted
from tests.e2e.existing import Existing, check_entrance
from tests.e2e.provider import STARTED, Provider, chosen, started
from tests.e2e.system import System, entered


def pytest_configure() -> None:
    """Refuse an existing cluster that the tests may not use, before any test runs."""
    context = os.environ.get("E2E_CONTEXT")
    if context:
        try:
            with started(Existing(context)):
                pass
        except Unusable as exc:
            raise pytest.UsageError(str(exc)) from exc


def pytest_report_header() -> str:
    """Name the cluster before the tests change it, so that a person can stop them."""
    return f"The tests use {chosen()}."


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Save the state of the cluster when a test fails."""
    report = yield
    if report.failed and STARTED:  # without a started cluster, KUBECONFIG may name a cluster that is not for tests
        report.sections.append(("cluster", evidence.collect(item.name)))
    return report


@pytest.fixture(scope="session")
def provider() -> Iterator[Provider]:
    """A started cluster, which KUBECONFIG names."""
    cluster = chosen()
    with started(cluster):
        yield cluster


@pytest.fixture(scope="session")
def version() -> str:
    """The tag of the images that the overlays deploy."""
    return deployed()["sluice-worker"].rpartition(":")[2]


@pytest.fixture(scope="session")
def platform(provider: Provider, version: str) -> Provider:
    """RabbitMQ, Redis, NGINX, KEDA and the Secrets are installed; the project's images are in the nodes."""
    with ThreadPoolExecutor(1) as beside:  # installing mostly waits, so build the images at the same time
        images = beside.submit(_load_images, provider, version)
        if isinstance(provider, Minicluster):
            installation.install(provider)
        elif isinstance(provider, Existing):
            provider.install_platform()
        images.result()
    try:
        check_entrance(provider.entrance)
    except Unusable as exc:  # without NGINX every test would time out
        pytest.exit(str(exc), returncode=1)
    return provider


def _load_images(provider: Provider, version: str) -> None:
    for archive in app_images.built(version, local_base=isinstance(provider, Minicluster)):
        provider.load_image(archive)


@pytest.fixture(scope="session")
def system(platform: Provider) -> Iterator[System]:
    """The system as clients access it. The fixtures `local`, `load`, `running` and `original` deploy overlays."""
    with entered(platform.entrance) as running:
        yield running


@pytest.fixture(scope="module")
def local(system: System) -> System:
    """The local overlay, deployed by the code of `make deploy`, which waits until it is ready."""
    deploy.up(objects.LOCAL)
    return system


@pytest.fixture(scope="module")
def load(system: System) -> Iterator[System]:
    """The load overlay with two idle workers."""
    burst.rest(system, "load")
    yield system
    # The HPA removes pods above the maximum at once; otherwise the next module would wait for the scale-down window.
    objects.set_maximum(burst.MINIMUM)
    objects.settled(objects.WORKER, burst.MINIMUM)


@pytest.fixture(scope="session")
def running(system: System) -> System:
    """A system under any overlay: the present one, or else the load overlay."""
    if not api.has("scaledobjects.keda.sh", objects.SCALER[2], f"--namespace={objects.SCALER[0]}"):
        deploy.up(objects.OVERLAYS / "load")
    return system


@pytest.fixture(scope="session")
def original(system: System) -> Posted:
    """A burst under the original's overlay, posted once for both tests of test_original.py.

    It is defined here because the Makefile passes that file to pytest twice, so a fixture in that file would run twice.
    """
    burst.rest(system, "original")
    at_s = time.time()
    return Posted(burst.post(system, "original"), at_s)


@pytest.fixture(scope="module")
def unmeasured() -> Iterator[None]:
    """For a module that needs much CPU: wait while the other session of `make e2e` measures a burst."""
    with burst.measuring():
        yield
