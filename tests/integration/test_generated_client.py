"""A client that openapi-python-client generates from the OpenAPI document of the running service."""

import importlib
import subprocess
import sys
from collections.abc import Iterator
from http import HTTPStatus
from types import ModuleType
from typing import Any

import pytest

from tests.harness.system import Api, System

PACKAGE = "sluice_client"
# Close to the client's read timeout; any task of this module ends within it.
WAIT_S = 10.0


@pytest.fixture(scope="module")
def api(shared: System) -> Api:
    shared.worker()
    return shared.api()


@pytest.fixture(scope="module")
def generated(api: Api, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Generate the package, and keep it on sys.path while the module's tests run."""
    folder = tmp_path_factory.mktemp("client")
    (folder / "openapi.json").write_bytes(api.client.get("/openapi.json").content)
    # the post hooks would need ruff on the PATH, and only format the code
    (folder / "config.yaml").write_text("post_hooks: []\n")
    command = [sys.executable, "-m", "openapi_python_client", "generate", "--path", "openapi.json"]
    command += ["--config", "config.yaml", "--meta", "none", "--output-path", PACKAGE, "--fail-on-warning"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    sys.path.insert(0, str(folder))
    yield
    sys.path.remove(str(folder))
    for name in [name for name in sys.modules if name.partition(".")[0] == PACKAGE]:
        del sys.modules[name]


@pytest.fixture
def client(api: Api, shared: System, generated: None) -> Iterator[Any]:  # noqa: ARG001
    made = module("client").AuthenticatedClient(base_url=api.url, token=shared.key, raise_on_unexpected_status=True)
    with made as opened:
        yield opened


def module(name: str) -> ModuleType:
    return importlib.import_module(f"{PACKAGE}.{name}")


def call(name: str, *arguments: Any, **named: Any) -> Any:
    """Call an operation by its operation id."""
    return module(f"api.tasks.{name}").sync_detailed(*arguments, **named)


def brief(name: str) -> Any:
    return module("models").Brief(task="brief", name=name)


def test_generated_client_posts_a_task_and_reads_its_result(client: Any) -> None:
    posted = call("post_task", client=client, body=brief("generated"))
    assert (posted.status_code, posted.parsed.task_status) == (HTTPStatus.ACCEPTED, "PENDING")
    ended = call("get_task", posted.parsed.task_id, client=client, wait=WAIT_S)
    assert (ended.status_code, ended.parsed.task_status.value) == (HTTPStatus.OK, "SUCCESS")
    assert ended.parsed.task_result == {"name_task": "generated", "state": "done"}


def test_generated_client_gets_one_task_for_one_key(client: Any, shared: System) -> None:
    ids = {
        call("post_task", client=client, body=brief("once"), idempotency_key=f"{shared.vhost}-key").parsed.task_id
        for _ in range(2)
    }
    assert len(ids) == 1


def test_generated_client_reads_an_outcome_per_input_of_a_batch(client: Any) -> None:
    models = module("models")
    wrong = models.Sleep(task="sleep", name="", seconds=-1)
    answer = call("post_batch", client=client, body=models.Batch(tasks=[brief("a"), wrong, brief("b")]))
    first, second, third = answer.parsed.outcomes
    assert (type(first), type(second), type(third)) == (models.AcceptedInput, models.Problem, models.AcceptedInput)
    assert second.type_ == "urn:sluice:problem:invalid"
    for accepted in (first, third):
        assert call("get_task", accepted.task_id, client=client, wait=WAIT_S).parsed.task_status.value == "SUCCESS"


def test_generated_client_reads_events_as_text_and_204_after_the_end(client: Any) -> None:
    task_id = call("post_task", client=client, body=brief("followed")).parsed.task_id
    assert "event: SUCCESS" in call("get_events", task_id, client=client).parsed
    assert call("get_events", task_id, client=client, last_event_id="SUCCESS").status_code == HTTPStatus.NO_CONTENT


def test_generated_client_reads_the_conflict_of_a_late_cancel(client: Any) -> None:
    ended = call("post_task", client=client, body=brief("done")).parsed.task_id
    call("get_task", ended, client=client, wait=WAIT_S)
    assert call("cancel_task", ended, client=client).parsed.type_ == "urn:sluice:problem:already-ended"


def test_generated_client_reads_problems(client: Any, api: Api) -> None:
    models = module("models")
    unknown = call("get_task", "0-0", client=client)
    assert (unknown.status_code, unknown.parsed.type_) == (HTTPStatus.NOT_FOUND, "urn:sluice:problem:not-found")
    invalid = call("post_task", client=client, body=brief(""))
    assert (invalid.status_code, type(invalid.parsed)) == (HTTPStatus.UNPROCESSABLE_ENTITY, models.Problem)
    assert invalid.parsed["errors"][0]["loc"] == ["brief", "name"]
    with module("client").AuthenticatedClient(base_url=api.url, token="wrong") as stranger:  # noqa: S106
        assert call("post_task", client=stranger, body=brief("a")).status_code == HTTPStatus.UNAUTHORIZED
