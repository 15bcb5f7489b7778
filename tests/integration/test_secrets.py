"""No credential is in the repository, in a log or in an answer."""

import re
import subprocess
from pathlib import Path

import pytest

from apps.contract.settings import ApiSettings, RecorderSettings, RequeueSettings, Settings, WorkerSettings, load
from tests.harness.system import ROOT, System, until

# Examples of URLs in the README and in error messages of settings.
EXAMPLES = {
    "amqp://user:password@host:5672/vhost",
    "redis://:password@host:6379/0",
    "redis://user:password@host:6379/0",
}

GOOD = {
    "CELERY_BROKER_URL": "amqp://api:long-and-secret@broker/",
    "CELERY_RESULT_BACKEND": "redis://:long-and-secret@redis/0",
    "TASK_ID_KEY": "sixteen-bytes-or-more",
    "API_KEYS": "tests:sixteen-bytes-or-more",
}


def test_no_answer_or_log_contains_a_secret(system: System) -> None:
    api = system.api(LOG_LEVEL="DEBUG")
    system.worker(LOG_LEVEL="DEBUG")
    system.recorder(LOG_LEVEL="DEBUG")
    told = [api.client.get(path).text for path in ("/healthz", "/metrics", "/openapi.json", "/nothing")]
    api.ended(api.accepted("fail"))
    told.append(api.client.post("/tasks", headers={"Authorization": "Bearer wrong"}).text)
    for server in (system.servers.rabbitmq, system.servers.redis):
        server.stop()
        told += [api.post("sleep").text, api.client.get("/healthz").text]
        server.start()
    until(lambda: api.get("/healthz") == 200)
    everything = "\n".join([*told, system.logs()])
    secrets = [*system.passwords.values(), system.key, system.task_id_key, *system.servers.redis.passwords.values()]
    assert [secret for secret in secrets if secret in everything] == []


def test_repository_contains_no_credential() -> None:
    files = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    found = {
        url
        for name in files
        if "tests" not in Path(name).parts and (ROOT / name).suffix not in {".png", ".txt"}
        for url in re.findall(r"(?:amqps?|rediss?)://[^\s/$<{]*:[^\s@$<{]+@[^\s|`\"]*", (ROOT / name).read_text())
    }
    assert found <= EXAMPLES


@pytest.mark.parametrize("kind", [ApiSettings, WorkerSettings, RecorderSettings, RequeueSettings])
def test_no_part_starts_without_its_credentials(kind: type[Settings]) -> None:
    load(kind, GOOD)
    needed = [name for name, field in kind.model_fields.items() if field.is_required()]
    for name in needed:
        with pytest.raises(SystemExit, match=f"{name.upper()} is not set"):
            load(kind, {key: value for key, value in GOOD.items() if key != name.upper()})
