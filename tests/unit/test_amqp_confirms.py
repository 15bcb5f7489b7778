"""Publisher confirms compared with a simple model: each publish gets exactly one outcome, the correct one."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.amqp.confirms import CONFIRMED, LOST, OVERDUE, QUEUE_FULL, UNROUTABLE, Confirms, Future, Outcome
from apps.amqp.frames import ProtocolError

pytestmark = pytest.mark.anyio

ANSWERS = st.tuples(st.sampled_from(["ack", "nack", "return", "expire", "leave"]), st.integers(0, 12), st.booleans())


def sent(confirms: Confirms, count: int) -> list[Future]:
    futures: list[Future] = [asyncio.get_running_loop().create_future() for _ in range(count)]
    for number, future in enumerate(futures, start=1):
        confirms.sent(str(number), future, due_s=number)
    return futures


async def test_single_and_multiple_acks_and_nacks_settle_their_publishes() -> None:
    confirms = Confirms()
    futures = sent(confirms, 5)
    confirms.answered(2, CONFIRMED, multiple=False)
    confirms.answered(3, QUEUE_FULL, multiple=True)
    assert [future.done() and future.result() for future in futures] == [
        QUEUE_FULL,
        CONFIRMED,
        QUEUE_FULL,
        False,
        False,
    ]
    confirms.answered(5, CONFIRMED, multiple=True)
    assert [future.result() for future in futures[3:]] == [CONFIRMED] * 2


async def test_returned_publish_is_refused_even_if_an_ack_follows() -> None:
    confirms = Confirms()
    futures = sent(confirms, 3)
    for publish_id in ("1", "2", "3"):
        confirms.returned(publish_id)
    confirms.answered(1, CONFIRMED, multiple=False)
    confirms.expire(2)
    confirms.lost()
    assert [future.result() for future in futures] == [UNROUTABLE] * 3


@pytest.mark.parametrize(("tag", "multiple"), [(1, False), (4, False), (0, False), (4, True), (0, True)])
async def test_answer_for_a_tag_that_is_not_open_is_a_protocol_error(tag: int, multiple: bool) -> None:
    confirms = Confirms()
    futures = sent(confirms, 3)
    confirms.answered(1, CONFIRMED, multiple=False)
    with pytest.raises(ProtocolError):
        confirms.answered(tag, CONFIRMED, multiple=multiple)
    assert not any(future.done() for future in futures[1:])


async def test_return_of_an_unknown_publish_is_a_protocol_error() -> None:
    confirms = Confirms()
    sent(confirms, 1)
    with pytest.raises(ProtocolError):
        confirms.returned("2")


def expected(model: list[Outcome | None], returned: set[int], tags: range, outcome: Outcome) -> None:
    for tag in tags:
        if model[tag - 1] is None:
            model[tag - 1] = UNROUTABLE if tag in returned else outcome


@given(st.lists(ANSWERS, max_size=30))
def test_outcomes_equal_those_of_a_model_for_any_sequence_of_answers(answers: list[tuple[str, int, bool]]) -> None:
    asyncio.run(compare(answers))


async def compare(answers: list[tuple[str, int, bool]]) -> None:
    confirms = Confirms()
    futures = sent(confirms, 12)
    model: list[Outcome | None] = [None] * 12
    open_, returned = set(range(1, 13)), set[int]()
    for what, tag, multiple in answers:
        try:
            if what in {"ack", "nack"}:
                outcome = CONFIRMED if what == "ack" else QUEUE_FULL
                tags = range(1, tag + 1) if multiple else range(tag, tag + 1)
                confirms.answered(tag, outcome, multiple=multiple)
                expected(model, returned, range(tags.start, tags.stop), outcome) if open_ & set(tags) else None
                open_ -= set(tags)
            elif what == "return":
                confirms.returned(str(tag))
                returned.add(tag)
            elif what == "expire":
                confirms.expire(tag)
                expected(model, returned, range(1, tag + 1), OVERDUE)
            elif tag:
                futures[tag - 1].cancel()
        except ProtocolError:
            assert not open_ & {tag}
    assert len(confirms) == len(open_)
    confirms.lost()
    expected(model, returned, range(1, 13), LOST)
    assert [future.result() for future in futures if not future.cancelled()] == [
        outcome for outcome, future in zip(model, futures, strict=True) if not future.cancelled()
    ]
