"""The OpenAPI document has an example for each answer with a body, valid for its schema."""

from typing import Any

import pytest

from apps.api.app import create_app
from apps.contract.settings import ApiSettings, load
from tests.unit.test_settings import GOOD

DOCUMENT: dict[str, Any] = create_app(load(ApiSettings, GOOD)).openapi()
# FastAPI describes these by itself: a page of text, and two constant answers.
OPERATIONS = {"/livez", "/readyz", "/healthz", "/metrics"}
ANSWERS = [
    (path, method, status)
    for path, calls in DOCUMENT["paths"].items()
    for method, call in calls.items()
    for status in call["responses"]
]
TASK_CALLS = {
    ("/tasks", "post"): {"202", "400", "401", "408", "409", "413", "415", "422", "429", "503"},
    ("/tasks/batch", "post"): {"202", "400", "401", "408", "409", "413", "415", "422", "429", "503"},
    ("/tasks/{task_id}", "get"): {"200", "400", "401", "404", "410", "503"},
    ("/tasks/{task_id}/events", "get"): {"200", "204", "400", "401", "404", "410", "429", "503"},
    ("/tasks/{task_id}", "delete"): {"200", "202", "400", "401", "404", "409", "410", "503"},
}


@pytest.mark.parametrize(("call", "statuses"), TASK_CALLS.items())
def test_every_answer_of_a_call_is_documented(call: tuple[str, str], statuses: set[str]) -> None:
    path, method = call
    assert statuses <= set(DOCUMENT["paths"][path][method]["responses"])


@pytest.mark.parametrize(("status", "kind"), [("422", "invalid"), ("503", "refused"), ("503", "outcome-unknown")])
def test_refused_batch_has_an_example(status: str, kind: str) -> None:
    answer = DOCUMENT["paths"]["/tasks/batch"]["post"]["responses"][status]["content"]["application/problem+json"]
    example = answer["examples"][f"{kind}-whole"]["value"]
    assert {outcome["type"] for outcome in example["outcomes"]} == {example["type"]} == {f"urn:sluice:problem:{kind}"}


@pytest.mark.parametrize(("path", "method", "status"), ANSWERS)
def test_every_answer_has_an_example(path: str, method: str, status: str) -> None:
    if status == "204" or (path in OPERATIONS and status == "200"):
        return
    answer = DOCUMENT["paths"][path][method]["responses"][status]
    assert answer["description"]
    for media_type, content in answer["content"].items():
        examples = [one["value"] for one in content.get("examples", {}).values()] or [content.get("example")]
        assert all(examples), media_type
        if media_type == "application/problem+json":
            assert {str(example["status"]) for example in examples} == {status}
