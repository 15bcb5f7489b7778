"""What the load test reads of the system that it loads."""

from apps.contract import topology
from loadtest.sample import left


def test_dead_letters_of_before_are_not_the_runs_and_those_taken_away_hide_none() -> None:
    before = dict.fromkeys(topology.QUEUES, (5, 0))
    none = dict.fromkeys(topology.QUEUES, (0, 0))
    assert set(left(none, before).values()) == {0}
    (dead, *_) = set(topology.QUEUES) - set(topology.WORK_QUEUES)
    found = left(none | {dead: (7, 0), topology.WORK_QUEUES[0]: (1, 2)}, before)
    assert {name: count for name, count in found.items() if count} == {dead: 2, topology.WORK_QUEUES[0]: 3}
