"""A post whose key was known when it was charged, and whose record had gone when it was claimed."""

from types import SimpleNamespace
from typing import Any

import pytest

from apps.api.errors import Problem
from apps.api.idempotency import Claim, Post
from apps.api.quotas import Quotas
from apps.api.submission import Submitter
from apps.contract.ids import TaskIds
from apps.contract.message import Payload
from apps.contract.quota import Quota
from tests.harness.simple import TASKS

pytestmark = pytest.mark.anyio


class Keys:
    """The request that had the key was refused in between, so that its record was deleted."""

    def __init__(self) -> None:
        self.settled: list[tuple[int, bool]] = []

    async def is_known(self, _owner: str, _key: str) -> bool:
        return True

    async def claim(self, post: Post, new_id: str) -> Claim:
        return Claim((b"", ""), new_id, 0, post.wanted, done=False, number=1)

    def settle(self, _: Claim, accepted: int, *, refused: bool = False) -> None:
        self.settled.append((accepted, refused))


async def test_post_that_is_refused_after_its_claim_leaves_no_key() -> None:
    keys: Any = Keys()
    unused: Any = None
    memory: Any = SimpleNamespace(full=False)
    quotas = Quotas(unused, (), Quota(1, 1), life_s=1, anyone="me")
    quotas.of("me").open_left = 0
    submitter = Submitter(TASKS, TaskIds(b"k" * 16), unused, keys, memory, quotas, deadline_s=1)
    with pytest.raises(Problem) as refused:
        await submitter.submit("me", [Payload("first", "{}")], key="key", body=b"{}")
    assert refused.value.status == 429
    assert keys.settled == [(0, True)]
