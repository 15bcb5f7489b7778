"""A value that is sampled less often than its chart has points."""

from loadtest.series import HELD_S, held

EDGES = [float(second) for second in range(13)]


def test_value_is_held_for_5_s_and_then_a_gap_follows() -> None:
    found = held([(0.5, 1), (3.2, 2), (10.9, 3)], EDGES)
    # The second sample is held until 8.2 s; the third one was taken before 11 s.
    assert found == [1, 1, 1, 2, 2, 2, 2, 2, None, None, 3, 3]
    assert HELD_S == 5


def test_chart_has_a_gap_before_the_first_sample() -> None:
    assert held([(1.5, 0.123)], EDGES[:4]) == [None, 0.12, 0.12]
