"""Settings: a missing or invalid one is named in one sentence, which does not contain its value."""

import pytest

from apps.contract.settings import ApiSettings, WorkerSettings, load

GOOD = {
    "CELERY_BROKER_URL": "amqp://api:long-and-secret@broker/",
    "CELERY_RESULT_BACKEND": "redis://:long-and-secret@redis/0",
    "TASK_ID_KEY": "sixteen-bytes-or-more",
    "API_KEYS": "tests:sixteen-bytes-or-more",
}


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"CELERY_BROKER_URL": "amqp://guest:guest@broker/"}, "CELERY_BROKER_URL: its password is a well-known"),
        ({"CELERY_BROKER_URL": "amqp://rabbitmq:rabbitmq@broker/"}, "CELERY_BROKER_URL: its password is a well-known"),
        ({"CELERY_BROKER_URL": "amqp://broker/"}, "CELERY_BROKER_URL: it has no password"),
        ({"CELERY_BROKER_URL": "amqp://guest@broker/"}, "CELERY_BROKER_URL: it has no password"),
        ({"CELERY_BROKER_URL": "broker:5672"}, "CELERY_BROKER_URL: it must read amqp://"),
        ({"CELERY_BROKER_URL": "http://u:a-password@broker/"}, "CELERY_BROKER_URL: it must read amqp://"),
        ({"CELERY_BROKER_URL": "amqp://u:a/password@broker/"}, "CELERY_BROKER_URL: it must read amqp://"),
        ({"CELERY_BROKER_URL": "amqp://u:a-password@one/;amqp://two/"}, "CELERY_BROKER_URL: it has no password"),
        ({"CELERY_BROKER_URL": "amqp://u:a-password@one/;"}, "CELERY_BROKER_URL: it must read amqp://"),
        ({"CELERY_RESULT_BACKEND": "cache:6379/0"}, "CELERY_RESULT_BACKEND: it must read redis://"),
        ({"TASK_ID_KEY": "short"}, "TASK_ID_KEY: it must have 16 to 64 bytes"),
        ({"TASK_ID_KEY": "x" * 65}, "TASK_ID_KEY: it must have 16 to 64 bytes"),
        ({"API_KEYS": "no-name-and-only-a-key"}, "API_KEYS: it must read name:key"),
        ({"API_KEYS": "tests:short"}, "API_KEYS: it must have 16 to 64 bytes"),
        ({"API_KEYS": "a:sixteen-bytes-or-more,a:sixteen-bytes-or-less"}, "API_KEYS: it gives a name twice"),
        ({"API_KEYS": "a:sixteen-bytes-or-more,b:sixteen-bytes-or-more"}, "API_KEYS: it gives two clients"),
        ({"API_KEYS": "a:sixteen bytes or more"}, "API_KEYS: a key has visible ASCII"),
        ({"API_KEYS": "a:sechzehn-zeichen-oder-mehr-ü"}, "API_KEYS: a key has visible ASCII"),
        ({"API_KEYS": f"{'n' * 65}:sixteen-bytes-or-more"}, "API_KEYS: a name may have 64 characters"),
        ({"API_KEYS": ""}, "API_KEYS is empty: set name:key"),
        ({"PUBLISH_DEADLINE_S": "-1"}, "PUBLISH_DEADLINE_S: "),
        ({"LOG_LEVEL": "LOUD"}, "LOG_LEVEL: "),
    ],
)
def test_invalid_setting_is_named_without_its_value(changed: dict[str, str], says: str) -> None:
    with pytest.raises(SystemExit) as refused:
        load(ApiSettings, GOOD | changed)
    (sentence,) = str(refused.value).splitlines()
    assert sentence.startswith(says)
    assert not any(value in sentence for value in changed.values() if value)


def test_all_missing_settings_are_named_together() -> None:
    with pytest.raises(SystemExit) as refused:
        load(ApiSettings, {})
    assert [line.split()[0] for line in str(refused.value).splitlines()] == [
        "CELERY_BROKER_URL",
        "CELERY_RESULT_BACKEND",
        "TASK_ID_KEY",
    ]


def test_several_broker_urls_are_accepted() -> None:
    urls = "amqp://u:a-password@one/v;amqps://u:a-password@two/v"
    assert load(ApiSettings, GOOD | {"CELERY_BROKER_URL": urls}).celery_broker_url.get_secret_value() == urls


def test_several_clients_have_separate_keys() -> None:
    settings = load(ApiSettings, GOOD | {"API_KEYS": "a:sixteen-bytes-or-more, b:sixteen:bytes:or:more"})
    assert {each.name: each.key.get_secret_value() for each in settings.api_keys} == {
        "a": "sixteen-bytes-or-more",
        "b": "sixteen:bytes:or:more",
    }


def test_authentication_is_disabled_only_explicitly() -> None:
    assert load(ApiSettings, GOOD | {"API_KEYS": "", "AUTH_DISABLED": "true"}).api_keys == ()


def test_repr_of_settings_contains_no_secret() -> None:
    shown = repr(load(ApiSettings, GOOD))
    assert "long-and-secret" not in shown
    assert "sixteen-bytes-or-more" not in shown


def test_results_are_kept_for_a_day_and_records_longer_than_messages() -> None:
    settings = load(WorkerSettings, GOOD)
    assert settings.result_ttl_s >= 24 * 3600
    assert settings.record_ttl_s >= 24 * 3600 + settings.result_ttl_s


@pytest.mark.parametrize(
    ("name", "url"),
    [
        ("CELERY_BROKER_URL", "amqps://u:long-and-secret@h/?no_verify_ssl=1"),
        ("CELERY_BROKER_URL", "amqps://u:long-and-secret@h/?ssl_cert_reqs=CERT_NONE"),
        ("CELERY_BROKER_URL", "amqps://u:long-and-secret@a/;amqps://u:long-and-secret@b/?cafile=/tmp/other.pem"),
        ("CELERY_RESULT_BACKEND", "rediss://u:long-and-secret@h/0?ssl_cert_reqs=none"),
        ("CELERY_RESULT_BACKEND", "rediss://u:long-and-secret@h/0?ssl_cert_reqs=optional"),
        ("CELERY_RESULT_BACKEND", "rediss://u:long-and-secret@h/0?ssl_check_hostname=False"),
    ],
)
def test_verification_of_certificates_cannot_be_disabled(name: str, url: str) -> None:
    with pytest.raises(SystemExit, match=rf"{name}: its parameter .* is refused.*SSL_CERT_FILE") as refused:
        load(ApiSettings, GOOD | {name: url})
    assert "long-and-secret" not in str(refused.value)


@pytest.mark.parametrize("query", ["ssl_cert_reqs=required", "ssl_ca_certs=/etc/ca.pem", "socket_timeout=1", ""])
def test_other_parameters_of_a_redis_url_are_accepted(query: str) -> None:
    load(ApiSettings, GOOD | {"CELERY_RESULT_BACKEND": f"rediss://u:long-and-secret@h/0?{query}"})
