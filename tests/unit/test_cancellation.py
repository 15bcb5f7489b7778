"""A cancel is told from a Cancelled that a task raises itself."""

import pytest

from apps.worker.cancel import Cancellation, Cancelled

GROUP = BaseExceptionGroup("of a TaskGroup", [ValueError(), BaseExceptionGroup("inner", [Cancelled()])])


@pytest.fixture
def cancellation() -> Cancellation:
    return Cancellation()


@pytest.mark.parametrize("error", [Cancelled(), GROUP])
def test_error_is_a_cancel_only_where_one_came(cancellation: Cancellation, error: BaseException) -> None:
    with cancellation.running("a"):
        pass
    assert not cancellation.caused(error)
    cancellation._cancelled.append("b")  # noqa: SLF001 - as the listener does
    with pytest.raises(Cancelled), cancellation.running("b"):
        pass
    assert cancellation.caused(error)
    assert not cancellation.caused(ValueError())
    with cancellation.running("c"):  # the next task's run
        pass
    assert not cancellation.caused(error)
