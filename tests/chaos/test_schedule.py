"""A seed always gives the same schedule, and a schedule has every fault that the run needs."""

from collections import Counter

from tests.chaos.faults import FAULTS, named
from tests.chaos.scenarios import SCENARIOS
from tests.chaos.schedule import TOGETHER_S, schedule
from tests.chaos.weakened import PROTECTIONS


def test_schedule_depends_only_on_the_seed() -> None:
    first = schedule(1, FAULTS, each=3, pairs=16)
    assert first == schedule(1, FAULTS, each=3, pairs=16)
    assert first != schedule(2, FAULTS, each=3, pairs=16)


def test_full_run_has_each_fault_four_times_and_24_pairs() -> None:
    for seed in range(20):
        steps = SCENARIOS["full"].steps(seed)
        alone = Counter(step.faults[0].kind for step in steps if len(step.faults) == 1)
        assert set(alone.values()) == {4}
        assert len(alone) == len(FAULTS) >= 15
        assert sum(len(step.faults) == 2 for step in steps) == 24


def test_faults_of_a_pair_never_affect_the_same_part() -> None:
    pairs = [step.faults for seed in range(50) for step in SCENARIOS["full"].steps(seed) if len(step.faults) == 2]
    assert not any(FAULTS[one.kind].parts & FAULTS[other.kind].parts for one, other in pairs)


def test_second_fault_of_a_pair_begins_while_the_first_is_active() -> None:
    pairs = [step for seed in range(50) for step in SCENARIOS["full"].steps(seed) if len(step.faults) == 2]
    assert all(step.faults[0].duration_s > step.apart_s + TOGETHER_S - 0.01 for step in pairs)


def test_durations_of_a_fault_spread_from_its_shortest_to_its_longest() -> None:
    for name, fault in FAULTS.items():
        steps = [step for step in SCENARIOS["full"].steps(3) if [each.kind for each in step.faults] == [name]]
        durations_s = sorted(step.faults[0].duration_s for step in steps)
        part_s = (fault.max_s - fault.min_s) / len(steps)
        for turn, duration_s in enumerate(durations_s):
            assert turn * part_s - 0.01 <= duration_s - fault.min_s <= (turn + 1) * part_s + 0.01
        assert all(0 <= step.faults[0].choice < 1 for step in steps)


def test_scenarios_have_the_nodes_that_their_faults_need() -> None:
    for scenario in SCENARIOS.values():
        for step in scenario.steps(1):
            for planned in step.faults:
                assert named(planned.kind).nodes <= scenario.setup.nodes, scenario.name


def test_each_protection_has_a_scenario() -> None:
    assert set(PROTECTIONS) <= set(SCENARIOS)
