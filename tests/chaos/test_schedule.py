"""The schedule of a seed is repeatable, and has all that a run is to have."""

from collections import Counter

from tests.chaos.faults import FAULTS, named
from tests.chaos.scenarios import SCENARIOS
from tests.chaos.schedule import TOGETHER_S, schedule
from tests.chaos.weakened import PROTECTIONS


def test_a_seed_repeats_its_schedule_and_no_other_seeds() -> None:
    first = schedule(1, FAULTS, each=3, pairs=16)
    assert first == schedule(1, FAULTS, each=3, pairs=16)
    assert first != schedule(2, FAULTS, each=3, pairs=16)


def test_the_full_run_has_each_kind_four_times_and_pairs() -> None:
    for seed in range(20):
        steps = SCENARIOS["full"].steps(seed)
        alone = Counter(step.faults[0].kind for step in steps if len(step.faults) == 1)
        assert set(alone.values()) == {4}
        assert len(alone) == len(FAULTS) >= 15
        assert sum(len(step.faults) == 2 for step in steps) == 24


def test_two_at_once_never_undo_each_other() -> None:
    pairs = [step.faults for seed in range(50) for step in SCENARIOS["full"].steps(seed) if len(step.faults) == 2]
    assert not any(FAULTS[one.kind].parts & FAULTS[other.kind].parts for one, other in pairs)


def test_the_second_of_two_begins_while_the_first_is_on() -> None:
    pairs = [step for seed in range(50) for step in SCENARIOS["full"].steps(seed) if len(step.faults) == 2]
    assert all(step.faults[0].duration_s > step.apart_s + TOGETHER_S - 0.01 for step in pairs)


def test_alone_each_kind_lasts_from_short_to_long() -> None:
    for name, fault in FAULTS.items():
        steps = [step for step in SCENARIOS["full"].steps(3) if [each.kind for each in step.faults] == [name]]
        durations_s = sorted(step.faults[0].duration_s for step in steps)
        part_s = (fault.max_s - fault.min_s) / len(steps)
        for turn, duration_s in enumerate(durations_s):
            assert turn * part_s - 0.01 <= duration_s - fault.min_s <= (turn + 1) * part_s + 0.01
        assert all(0 <= step.faults[0].choice < 1 for step in steps)


def test_scenarios_name_faults_that_there_are_and_have_the_nodes_for_them() -> None:
    for scenario in SCENARIOS.values():
        for step in scenario.steps(1):
            for planned in step.faults:
                assert named(planned.kind).nodes <= scenario.setup.nodes, scenario.name


def test_each_protection_has_a_run_that_shows_it() -> None:
    assert set(PROTECTIONS) <= set(SCENARIOS)
