"""A post that is not accepted is not charged to the quota, and leaves no key."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from apps.api.errors import Problem
from apps.api.idempotency import Claim, Post
from apps.api.publisher import CONFIRMED, Outcome
from apps.api.quotas import Quotas, Share
from apps.api.submission import Submitter
from apps.contract.ids import TaskIds
from apps.contract.message import Payload
from apps.contract.quota import Quota
from tests.harness.simple_tasks import TASKS

pytestmark = pytest.mark.anyio

INPUT = Payload("first", "{}")


class Keys:
    """Claims each key as new: the earlier request with the key was refused meanwhile, and its record deleted."""

    def __init__(self) -> None:
        self.settled: list[tuple[int, bool]] = []

    async def is_known(self, _owner: str, _key: str) -> bool:
        return True

    async def claim(self, post: Post, new_id: str) -> Claim:
        return Claim((b"", ""), new_id, 0, post.wanted, done=False, number=1)

    def settle(self, _: Claim, accepted: int, *, refused: bool = False) -> None:
        self.settled.append((accepted, refused))


class Publisher:
    """Answers each publish with this outcome, or never."""

    def __init__(self, outcome: Outcome | None) -> None:
        self._outcome = outcome

    async def publish(self, _: object) -> Outcome:
        return self._outcome or await asyncio.get_running_loop().create_future()


def parts(outcome: Outcome | None = None, keys: Any = None) -> tuple[Submitter, Share]:
    """Return a Submitter, and the share of its only client, which may have one open task."""
    unused: Any = None
    memory: Any = SimpleNamespace(full=False)
    publisher: Any = Publisher(outcome)
    quotas = Quotas(unused, (), Quota(1, 1), life_s=1, anyone="me")
    return Submitter(TASKS, TaskIds(b"k" * 16), publisher, keys, memory, quotas, deadline_s=1), quotas.of("me")


async def test_accepted_task_is_reported_and_stays_charged() -> None:
    submitter, share = parts(CONFIRMED)
    assert (await submitter.submit_one("me", INPUT, key=None, body=b"{}")).outcome is CONFIRMED
    assert (share.open_left, sum(share.next_report().accepted.values())) == (0, 1)
    with pytest.raises(Problem) as refused:
        await submitter.submit_one("me", INPUT, key=None, body=b"{}")
    assert refused.value.status == 429


@pytest.mark.parametrize("kind", ["refused", "unknown"])
async def test_task_that_is_not_accepted_is_not_charged(kind: Any) -> None:
    submitter, share = parts(Outcome(kind, "a reason"))
    assert (await submitter.submit_one("me", INPUT, key=None, body=b"{}")).outcome.kind == kind
    assert (share.open_left, share.touched) == (1, False)


async def test_post_of_a_disconnected_client_is_not_charged() -> None:
    submitter, share = parts(outcome=None)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0):
            await submitter.submit_one("me", INPUT, key=None, body=b"{}")
    assert (share.open_left, share.touched) == (1, False)


async def test_post_refused_after_its_claim_leaves_no_key() -> None:
    """The key was known when the post was charged, but its record was deleted before the key was claimed."""
    keys = Keys()
    submitter, share = parts(keys=keys)
    share.open_left = 0
    with pytest.raises(Problem) as refused:
        await submitter.submit_one("me", INPUT, key="key", body=b"{}")
    assert refused.value.status == 429
    assert keys.settled == [(0, True)]
