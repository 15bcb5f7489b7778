"""A value that is looked at less often than a chart has points."""

from loadtest.series import HELD_S, held

EDGES = [float(second) for second in range(13)]


def test_late_look_leaves_no_gap_and_a_missing_one_does() -> None:
    found = held([(0.5, 1), (3.2, 2), (10.9, 3)], EDGES)
    # the second look held until 8.2 s, the third came before 11 s
    assert found == [1, 1, 1, 2, 2, 2, 2, 2, None, None, 3, 3]
    assert HELD_S == 5


def test_nothing_is_known_before_the_first_look() -> None:
    assert held([(1.5, 0.123)], EDGES[:4]) == [None, 0.12, 0.12]
