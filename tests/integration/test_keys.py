"""The record of an Idempotency-Key in a real Redis: its owner, its contents and its expiry."""

import asyncio
import secrets
from collections.abc import Awaitable, Callable

import pytest

from apps.api import errors
from apps.api.idempotency import Claim, Keys, Post
from apps.api.store import TIMEOUT_S, Store
from apps.api.waiter import Waiter
from apps.contract.ids import TaskIds
from tests.harness.servers import Servers

LIFE_S = 100
IDS = TaskIds(b"a key of the tests")
FIRST, SECOND, THIRD, FOURTH = (IDS.new("tests") for _ in range(4))
# A request with this deadline counts as abandoned as soon as it has claimed its key.
ABANDONED_AT_ONCE = -TIMEOUT_S

Test = Callable[[Keys, Store], Awaitable[None]]


def run(servers: Servers, test: Test) -> None:
    """Run a coroutine with `Keys` on the Redis of the test."""

    async def within() -> None:
        store, waiter = Store(servers.redis.url()), Waiter(servers.redis.url())
        listening = asyncio.create_task(waiter.run())
        await test(Keys(store, waiter, IDS, deadline_s=0.3, life_s=LIFE_S), store)
        listening.cancel()
        await store.close()

    asyncio.run(within())


def post(key: str, *, owner: str = "tests", wanted: int = 1, open_s: float = 60.0) -> Post:
    return Post(owner, key, b"body", wanted, open_s)


@pytest.fixture
def key() -> str:
    return secrets.token_hex(8)


def test_claim_that_was_taken_over_cannot_settle_the_key(servers: Servers, key: str) -> None:
    async def test(keys: Keys, _: Store) -> None:
        late = await keys.claim(post(key), FIRST)
        taker = await keys.claim(post(key, open_s=ABANDONED_AT_ONCE), SECOND)
        assert (taker.first_id, taker.done) == (FIRST, False)
        keys.settle(late, 0)
        with pytest.raises(errors.Problem, match="still open"):  # the second claim is still valid
            await keys.claim(post(key), THIRD)
        keys.settle(taker, 1)
        keys.settle(late, 0)
        again = await keys.claim(post(key), FOURTH)
        assert (again.first_id, again.accepted, again.done) == (FIRST, 1, True)

    run(servers, test)


def test_partly_settled_key_is_claimed_by_a_request_for_more_inputs(servers: Servers, key: str) -> None:
    async def test(keys: Keys, _: Store) -> None:
        keys.settle(await keys.claim(post(key, wanted=0b101), FIRST), 0b101)
        more = await keys.claim(post(key, wanted=0b111), SECOND)
        assert (more.first_id, more.accepted, more.done) == (FIRST, 0b101, False)
        keys.settle(more, 0b111)
        assert (await keys.claim(post(key, wanted=0b111), THIRD)).done

    run(servers, test)


def test_expiry_of_a_key_counts_from_its_first_claim(servers: Servers, key: str) -> None:
    async def test(keys: Keys, store: Store) -> None:
        claim = await keys.claim(post(key), FIRST)
        assert LIFE_S - 30 < await store.call("TTL", claim.records[0]) <= LIFE_S
        await store.call("EXPIRE", claim.records[0], 10)
        keys.settle(claim, 0)
        keys.settle(await keys.claim(post(key), SECOND), 1)
        assert (await keys.claim(post(key), THIRD)).done
        assert await store.call("TTL", claim.records[0]) <= 10

    run(servers, test)


@pytest.mark.parametrize(("mine", "theirs"), [(("a/b", "c"), ("a", "b/c")), (("a", "k"), ("b", "k"))])
def test_keys_of_different_clients_are_independent(
    servers: Servers, key: str, mine: tuple[str, str], theirs: tuple[str, str]
) -> None:
    async def test(keys: Keys, _: Store) -> None:
        claims: list[Claim] = []
        for owner, name in (mine, theirs):
            claims.append(await keys.claim(post(f"{name}-{key}", owner=owner), IDS.new(owner)))
            keys.settle(claims[-1], 1)
        assert len({claim.first_id for claim in claims}) == 2

    run(servers, test)
