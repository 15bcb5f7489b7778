"""What cannot be run is said in one sentence, and nothing is started."""

import pytest

from ops.servers.ports import free_ports
from tests.harness.system import System
from tests.load.conftest import Run


def test_shape_that_does_not_exist_is_named_with_those_that_do(loadtest: Run) -> None:
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
def test_options_that_do_not_go_together_are_refused(loadtest: Run, arguments: list[str], sentence: str) -> None:
    done = loadtest("short", *arguments)
    assert sentence in done.stderr
    assert (done.stdout, done.returncode) == ("", 2)


def test_host_whose_queues_nobody_can_see_is_not_loaded(loadtest: Run) -> None:
    done = loadtest("short", "--host", "http://127.0.0.1:1")
    assert done.stderr.startswith("HOST alone does not show whether its queues drain: set CELERY_BROKER_URL")
    assert (done.stdout, done.returncode) == ("", 1)


@pytest.fixture
def seen(system: System) -> dict[str, str]:
    """Where a host's queues are seen."""
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


def test_host_whose_counters_nobody_can_see_is_not_loaded(loadtest: Run, system: System, seen: dict[str, str]) -> None:
    url = system.api().url
    no_counters = {"METRICS_URLS": f"{url}/livez", "SLUICE_KEY": system.key}
    done = loadtest("short", "--host", url, **seen, **no_counters)
    assert done.stderr.startswith(f"{url}/livez has no counter sluice_accepted_total: METRICS_URLS must list")
    assert (done.stdout, done.returncode) == ("", 1)


def test_key_that_the_host_does_not_take_is_named(loadtest: Run, system: System, seen: dict[str, str]) -> None:
    url = system.api().url
    done = loadtest("short", "--host", url, **seen, SLUICE_KEY="another")
    assert done.stderr == f"{url} answers 401: set SLUICE_KEY to a valid bearer key.\n"
    assert (done.stdout, done.returncode) == ("", 1)
