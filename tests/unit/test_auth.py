"""Bearer keys: a request is compared with every key in constant time, in a single place."""

import hmac
from pathlib import Path

import pytest

from apps.api.auth import Clients
from apps.api.errors import Problem
from apps.contract.keys import parse

ROOT = Path(__file__).parents[2]
KEYS = parse(",".join(f"{name}:{name}-0123456789abcdef" for name in ("a", "b", "c")))


def test_each_request_is_compared_with_every_key(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[bytes] = []

    def compare(ours: bytes, given: bytes) -> bool:
        compared.append(ours)
        return hmac_compare(ours, given)

    hmac_compare = hmac.compare_digest
    monkeypatch.setattr("apps.api.auth.hmac.compare_digest", compare)
    clients = Clients(KEYS)
    for each in (KEYS[0], KEYS[2]):
        assert clients.identify(f"Bearer {each.key.get_secret_value()}") == each.name
    with pytest.raises(Problem):
        clients.identify("Bearer a-0123456789abcdeX")
    assert compared == [each.key.get_secret_value().encode() for each in KEYS] * 3


def test_only_one_module_compares_keys() -> None:
    using = [path.name for path in (ROOT / "apps/api").glob("*.py") if "compare_digest" in path.read_text()]
    reading = [path.name for path in (ROOT / "apps").rglob("*.py") if "api_keys" in path.read_text()]
    assert using == ["auth.py"]
    assert sorted(reading) == ["auth.py", "services.py", "settings.py"]
