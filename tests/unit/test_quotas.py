"""A client's share of its quota in one replica: admission, reports, and behaviour without Redis."""

import pytest

from apps.api import quotas
from apps.api.errors import Problem
from apps.api.quotas import Share
from apps.contract import quota
from apps.contract.ids import uuid7
from apps.contract.quota import Quota


def share(tasks_per_s: int = 10, open_tasks: int = 2000) -> Share:
    return Share("me", Quota(tasks_per_s, open_tasks))


def accept(of: Share, tasks: int) -> None:
    with of.charge(tasks) as charge:
        for _ in range(tasks):
            charge.accept(uuid7())


def refused(of: Share, tasks: int) -> Problem:
    with pytest.raises(Problem) as raised:
        of.charge(tasks)
    return raised.value


def test_charge_for_tasks_that_are_not_accepted_is_returned() -> None:
    one = share(open_tasks=10)
    with one.charge(10) as charge:
        assert not one.fits(1)
        for _ in range(4):
            charge.accept(uuid7())
    assert (one.open_left, one.rate_left) == (6, 1000 - 4)
    report = one.next_report()
    assert (report.admitted, sum(report.accepted.values())) == (4, 4)


def test_charge_returned_after_a_renewal_is_kept() -> None:
    one = share(open_tasks=10)
    with one.charge(6):
        assert one.next_report().admitted == 6
        one.renew(0, 1000 - 6, 1)
        assert one.open_left == 4  # six are being posted
    assert one.open_left == 10
    assert one.next_report().admitted == -6


def test_share_is_the_quota_divided_by_the_replicas() -> None:
    one = share()
    one.renew(open_tasks=1000, tokens=501, replicas=2)
    assert (one.open_left, one.rate_left) == (500, 251)
    one.renew(open_tasks=2001, tokens=-5, replicas=2)
    assert one.exhausted


def test_batch_that_needs_the_whole_quota_fits_after_a_renewal() -> None:
    """An equal share would never be enough for it."""
    one = share()
    one.renew(open_tasks=0, tokens=1000, replicas=2)
    assert refused(one, 1000).status == 429
    assert one.refuses_batches
    one.renew(open_tasks=0, tokens=1000, replicas=2)
    accept(one, 1000)
    assert not one.fits(1)


def test_report_is_repeated_unchanged_until_it_is_acknowledged() -> None:
    one = share()
    accept(one, 3)
    first = one.next_report()
    accept(one, 2)
    one.refill()
    assert one.next_report() is first
    one.renew(3, 900, 1)
    assert (one.rate_left, one.open_left) == (900 - 2, 2000 - 3 - 2)
    second = one.next_report()
    assert (second.number, second.admitted) == (first.number + 1, 2)


def test_rate_is_refilled_without_redis_and_open_tasks_only_grow(monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = 0.0
    monkeypatch.setattr("apps.api.quotas.time.monotonic", lambda: now_s)
    one = share(open_tasks=1100)
    one.renew(0, 1000, 2)
    accept(one, 500)
    assert not one.fits(1)
    now_s = 10.0
    one.refill()
    assert one.rate_left == 50  # half of ten per second, for ten seconds
    accept(one, 50)
    now_s = 1000.0
    one.refill()
    assert (one.rate_left, one.open_left) == (500, 0)
    assert refused(one, 1).members["quota"]["exceeded"] == "open_tasks"


def test_retry_after_is_the_time_until_the_rate_allows_the_post() -> None:
    one = share(tasks_per_s=10)
    accept(one, 990)
    problem = refused(one, 35)
    assert problem.headers["Retry-After"] == "3"
    assert problem.members["quota"] == {"tasks_per_s": 10, "open_tasks": 2000, "exceeded": "tasks_per_s"}


def test_first_refusals_are_immediate_and_only_some_later_ones_are_delayed() -> None:
    one = share(open_tasks=1)
    accept(one, 1)
    held_s = [refused(one, 1).held_s for _ in range(quotas.DELAYED_MAX + 10)]
    assert held_s[: quotas.IMMEDIATE_MAX] == [0.0] * quotas.IMMEDIATE_MAX
    held = held_s[quotas.IMMEDIATE_MAX : quotas.DELAYED_MAX]
    assert 0.5 * quotas.REFUSAL_DELAY_S <= min(held) < 0.6 * quotas.REFUSAL_DELAY_S
    assert 1.4 * quotas.REFUSAL_DELAY_S < max(held) <= 1.5 * quotas.REFUSAL_DELAY_S
    assert len(set(held)) > len(held) / 2, "answers sent at the same time would synchronize the next posts"
    assert set(held_s[quotas.DELAYED_MAX :]) == {0.0}


def test_field_is_the_period_in_which_the_id_was_created() -> None:
    task_id = uuid7()
    made_ms = int(task_id[:8] + task_id[9:13], 16)
    assert int(quota.field(task_id), 16) == made_ms >> quota.PERIOD_BITS
