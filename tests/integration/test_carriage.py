"""A task of any model receives the posted values exactly: single, in a batch, at a retry, and after a requeue."""

import json
from collections.abc import Callable
from random import Random
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from apps.contract.tasks import Input, input_adapter
from tests.harness.echo_app import MODELS, MOOD
from tests.harness.random_models import exact, made_tasks, random_spec, random_text
from tests.harness.records import Records
from tests.harness.simple_tasks import WORK_QUEUE
from tests.harness.system import Api, System, until
from tests.harness.thorough import POOL_PARAMETERS, thorough
from tests.integration.test_dead_letters import command

MODULE = "tests.harness.echo_app"
SEED = 19
RANDOM = Random(SEED)  # noqa: S311 - reproducible test data
SPECS = [random_spec(RANDOM, f"made_{number}") for number in range(10)]
TEXTS = [random_text(RANDOM, spec) for spec in SPECS for _ in range(8)]
ENVIRONMENT: dict[str, Any] = {MODELS: json.dumps(SPECS), "RETRY_BACKOFF_S": "1", "RETRY_BACKOFF_MAX_S": "1"}
ADAPTER: TypeAdapter[Input] = input_adapter(made_tasks(SPECS))


def expected(text: str) -> str | None:
    """Return the expected answer of the task; None for an invalid input."""
    try:
        return exact(ADAPTER.validate_json(text))
    except ValidationError:
        return None


def test_generated_texts_contain_enough_valid_and_invalid_inputs() -> None:
    accepted = [text for text in TEXTS if expected(text)]
    assert min(len(accepted), len(TEXTS) - len(accepted)) > len(TEXTS) // 5


@pytest.fixture(params=POOL_PARAMETERS)
def api(request: pytest.FixtureRequest, system: System) -> Api:
    changed = {MOOD: "it has changed its mind", "WORKER_POOL": request.param, "WORKER_CONCURRENCY": "2"}
    changed |= {"RETURN_MAX_S": "1"}
    system.worker(MODULE, **changed, **ENVIRONMENT)
    return system.api(MODULE, **ENVIRONMENT)


def check(api: Api, outcomes: list[tuple[int, str | None]]) -> None:
    """Compare each status with the validity of its text, and each result with the posted values."""
    assert [status == 202 for status, _ in outcomes] == [expected(text) is not None for text in TEXTS]
    assert {status for status, _ in outcomes} <= {202, 400, 422}
    for text, (_, task_id) in zip(TEXTS, outcomes, strict=True):
        if task_id is not None:
            ended = api.ended(task_id)
            assert (ended["task_status"], ended["task_result"].get("name_task")) == ("SUCCESS", expected(text)), text


@pytest.mark.parametrize("content_type", ["application/json", *thorough("application/json; charset=utf-8")])
def test_task_receives_the_posted_values(api: Api, content_type: str) -> None:
    """The first content type takes the fast path, the second FastAPI's route."""
    answers = [api.client.post("/tasks", content=text, headers={"Content-Type": content_type}) for text in TEXTS]
    check(api, [(answer.status_code, answer.json().get("task_id")) for answer in answers])


def test_task_of_a_batch_receives_the_posted_values(api: Api) -> None:
    body = '{ "tasks":\n[' + " ,\t".join(TEXTS) + "] }"
    answer = api.client.post("/tasks/batch", content=body, headers={"Content-Type": "application/json"})
    check(api, [(outcome["status"], outcome.get("task_id")) for outcome in answer.json()["outcomes"]])


def test_input_that_only_the_worker_rejects_is_a_failure_of_type_not_understood(api: Api, system: System) -> None:
    system.recorder()
    ended = api.ended(api.accepted("moody_0"))
    assert (ended["task_status"], ended["task_result"]["type"]) == ("FAILURE", "NotUnderstood")
    assert "it has changed its mind" in ended["task_result"]["message"]
    assert Records(system.redis).read(ended["task_id"]).tries == 0
    assert api.ended(api.accepted("moody_0"))["task_status"] == "FAILURE"  # the worker still consumes


@pytest.mark.thorough
def test_requeued_task_receives_the_posted_values(system: System) -> None:
    system.define(message_ttl_s=1)
    api = system.api(MODULE, **ENVIRONMENT)
    system.recorder()
    texts = [text for text in TEXTS if expected(text)][::4]
    posted = [api.client.post("/tasks", content=text, headers={"Content-Type": "application/json"}) for text in texts]
    ids = [answer.json()["task_id"] for answer in posted]
    assert {api.ended(task_id)["task_status"] for task_id in ids} == {"FAILURE"}
    until(lambda: system.depth_messages("dead.parked") == len(ids))
    system.define()
    system.worker(MODULE, **ENVIRONMENT)
    for text, task_id in zip(texts, ids, strict=True):
        ended = api.ended(command(system, "requeue", task_id).strip())
        assert (ended["task_status"], ended["task_result"].get("name_task")) == ("SUCCESS", expected(text))


def test_input_is_not_in_the_headers_of_a_retry(system: System) -> None:
    """By default Celery writes the arguments into headers, for its own log and for monitors."""
    system.worker(RETRY_BACKOFF_S="600", RETRY_BACKOFF_MAX_S="600")
    api = system.api()
    management = system.servers.rabbitmq.management

    def waiting() -> list[dict[str, Any]]:
        queues = management(f"/api/queues/{system.vhost}")
        names = [queue["name"] for queue in queues if queue["name"].startswith("celery_delayed_")]
        got = {"count": 1, "ackmode": "reject_requeue_true", "encoding": "auto"}
        return [one for name in names for one in management(f"/api/queues/{system.vhost}/{name}/get", "POST", got)]

    for number in range(3):  # one of the random delays may end too early
        api.accepted("flaky", f"s3cret-{number}", failures=1)
    (message, *_) = until(waiting)
    assert "s3cret" in message["payload"]
    assert "s3cret" not in str(message["properties"])


@pytest.mark.parametrize(
    ("module", "start"),
    [("uvicorn", lambda system: system.api), ("celery", lambda system: system.worker)],
)
def test_api_and_worker_do_not_start_with_an_impure_model(
    system: System, module: str, start: Callable[[System], Callable[..., object]]
) -> None:
    del module
    impure = [["made_0", [["made", "uuid", None, "uuid4"]], [], False]]
    with pytest.raises(AssertionError):
        start(system)(MODULE, **{MODELS: json.dumps(impure)})
    assert f"Task {WORK_QUEUE}:made_0 cannot be accepted: Made_made_0.made has a default_factory" in system.logs()
    assert "Traceback" not in system.logs()
