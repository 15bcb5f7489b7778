"""The record of an Idempotency-Key in a real Redis: who has it, what it keeps, and how long it lives."""

import asyncio
import secrets
from collections.abc import Awaitable, Callable

import pytest

from apps.api import errors
from apps.api.idempotency import Claim, Keys, Post
from apps.api.store import TIMEOUT_S, Store
from apps.api.waiter import Waiter
from tests.harness.servers import Servers

LIFE_S = 100
# A request that says so is abandoned as soon as it has claimed.
ABANDONED_AT_ONCE = -TIMEOUT_S

Test = Callable[[Keys, Store], Awaitable[None]]


def run(servers: Servers, test: Test) -> None:
    """Run a coroutine with `Keys` on the test's Redis."""

    async def within() -> None:
        store, waiter = Store(servers.redis.url()), Waiter(servers.redis.url())
        listening = asyncio.create_task(waiter.run())
        await test(Keys(store, waiter, deadline_s=0.3, life_s=LIFE_S), store)
        listening.cancel()
        await store.close()

    asyncio.run(within())


def post(key: str, *, owner: str = "tests", wanted: int = 1, open_s: float = 60.0) -> Post:
    return Post(owner, key, b"body", wanted, open_s)


@pytest.fixture
def key() -> str:
    return secrets.token_hex(8)


def test_claim_that_was_taken_over_settles_nothing(servers: Servers, key: str) -> None:
    async def test(keys: Keys, _: Store) -> None:
        late = await keys.claim(post(key), "first")
        taker = await keys.claim(post(key, open_s=ABANDONED_AT_ONCE), "second")
        assert (taker.first_id, taker.done) == ("first", False)
        keys.settle(late, 0)
        with pytest.raises(errors.Problem, match="still open"):  # the taker's claim is its own still
            await keys.claim(post(key), "third")
        keys.settle(taker, 1)
        keys.settle(late, 0)
        again = await keys.claim(post(key), "fourth")
        assert (again.first_id, again.accepted, again.done) == ("first", 1, True)

    run(servers, test)


def test_key_that_is_done_for_less_is_claimed_by_who_wants_more(servers: Servers, key: str) -> None:
    async def test(keys: Keys, _: Store) -> None:
        keys.settle(await keys.claim(post(key, wanted=0b101), "first"), 0b101)
        more = await keys.claim(post(key, wanted=0b111), "second")
        assert (more.first_id, more.accepted, more.done) == ("first", 0b101, False)
        keys.settle(more, 0b111)
        assert (await keys.claim(post(key, wanted=0b111), "third")).done

    run(servers, test)


def test_key_lives_from_its_first_claim(servers: Servers, key: str) -> None:
    async def test(keys: Keys, store: Store) -> None:
        claim = await keys.claim(post(key), "first")
        assert LIFE_S - 30 < await store.call("TTL", claim.record) <= LIFE_S
        await store.call("EXPIRE", claim.record, 10)
        keys.settle(claim, 0)
        keys.settle(await keys.claim(post(key), "second"), 1)
        assert (await keys.claim(post(key), "third")).done
        assert await store.call("TTL", claim.record) <= 10

    run(servers, test)


@pytest.mark.parametrize(("mine", "theirs"), [(("a/b", "c"), ("a", "b/c")), (("a", "k"), ("b", "k"))])
def test_clients_have_keys_of_their_own(
    servers: Servers, key: str, mine: tuple[str, str], theirs: tuple[str, str]
) -> None:
    async def test(keys: Keys, _: Store) -> None:
        claims: list[Claim] = []
        for owner, name in (mine, theirs):
            claims.append(await keys.claim(post(f"{name}-{key}", owner=f"{owner}"), f"id of {owner}"))
            keys.settle(claims[-1], 1)
        assert [claim.first_id for claim in claims] == [f"id of {mine[0]}", f"id of {theirs[0]}"]

    run(servers, test)
