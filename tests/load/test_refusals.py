"""A load test that cannot run is refused with one sentence, and starts nothing."""

import pytest

from ops.servers.ports import free_ports
from tests.harness.system import System
from tests.load.conftest import Run


def test_unknown_shape_is_refused_and_existing_shapes_are_named(loadtest: Run) -> None:
    done = loadtest("tsunami")
    assert done.stderr == "There is no shape 'tsunami': choose one of short, ended, or add it to shapes.toml.\n"
    assert done.returncode == 1


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--cluster"], "--cluster needs --host"),
        (["--host", "localhost:8080"], "--host localhost:8080 is not a URL: write it as http://host:port."),
        (["--apis", "0"], "1 or more"),
        (["--apis", "2", "--host", "http://127.0.0.1:1"], "omit --host"),
    ],
)
def test_invalid_combination_of_options_is_refused(loadtest: Run, arguments: list[str], sentence: str) -> None:
    done = loadtest("short", *arguments)
    assert sentence in done.stderr
    assert (done.stdout, done.returncode) == ("", 2)


def test_host_without_access_to_its_queues_is_refused(loadtest: Run) -> None:
    done = loadtest("short", "--host", "http://127.0.0.1:1")
    assert done.stderr.startswith("HOST alone does not show whether its queues drain: set CELERY_BROKER_URL")
    assert (done.stdout, done.returncode) == ("", 1)


@pytest.fixture
def seen(system: System) -> dict[str, str]:
    """The settings that give access to a host's queues."""
    rabbitmq = system.servers.rabbitmq
    return {
        "CELERY_BROKER_URL": rabbitmq.url(vhost=system.vhost),
        "RABBITMQ_MANAGEMENT_URL": rabbitmq.management.url,
    }


def test_host_that_does_not_answer_is_named(loadtest: Run, seen: dict[str, str]) -> None:
    (port,) = free_ports(1)
    done = loadtest("short", "--host", f"http://127.0.0.1:{port}", **seen)
    assert done.stderr.startswith(f"http://127.0.0.1:{port} does not answer")
    assert (done.stdout, done.returncode) == ("", 1)


def test_host_without_its_counters_is_refused(loadtest: Run, system: System, seen: dict[str, str]) -> None:
    url = system.api().url
    no_counters = {"METRICS_URLS": f"{url}/livez", "SLUICE_KEY": system.key}
    done = loadtest("short", "--host", url, **seen, **no_counters)
    assert done.stderr.startswith(f"{url}/livez has no counter sluice_accepted_total: METRICS_URLS must list")
    assert (done.stdout, done.returncode) == ("", 1)


def test_key_that_the_host_refuses_is_reported(loadtest: Run, system: System, seen: dict[str, str]) -> None:
    url = system.api().url
    done = loadtest("short", "--host", url, **seen, SLUICE_KEY="another")
    assert done.stderr == f"{url} answers 401: set SLUICE_KEY to a valid bearer key.\n"
    assert (done.stdout, done.returncode) == ("", 1)
