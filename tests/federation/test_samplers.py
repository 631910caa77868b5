"""Who is asked: by images, in turn, and each by itself."""

from __future__ import annotations

from collections import Counter

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from fleetseg import rng
from fleetseg.config import FederationConfig
from fleetseg.federation.cohort import SAMPLERS, sample_cohort
from fleetseg.federation.known import Accepted, Memory, Outcome
from fleetseg.federation.messages import Enrolment

FLEET = {f"car-{i}": Enrolment(f"car-{i}", 1 + i, 9, (9,)) for i in range(9)}


def asked_in(
    round_: int, there: dict[str, Enrolment], memory: Memory, how: FederationConfig
) -> set[str]:
    return set(sample_cohort(there, how, seed=0, round_=round_, memory=memory).asked)


def test_by_images_over_many_rounds() -> None:
    how = FederationConfig(sampler="weighted", cohort=3)
    counts: Counter[str] = Counter()
    for round_ in range(3000):
        counts.update(asked_in(round_, FLEET, {}, how))
    for name, enrolment in FLEET.items():
        expected = 3000 * 3 * enrolment.num_images / 45
        assert abs(counts[name] - expected) < 4 * np.sqrt(expected)


@given(st.lists(st.sets(st.sampled_from(list(FLEET)), min_size=1), max_size=25), st.integers(1, 4))
def test_in_turn_nobody_is_asked_twice_while_somebody_waits(
    attendance: list[set[str]], cohort: int
) -> None:
    how, remember = FederationConfig(sampler="round-robin", cohort=cohort), SAMPLERS["round-robin"]
    memory: Memory = {}
    last = dict.fromkeys(FLEET, 0)
    for round_, there in enumerate(attendance, start=1):
        asked = asked_in(round_, {name: FLEET[name] for name in there}, memory, how)
        assert len(asked) == min(cohort, len(there))
        waiting = there - asked
        if waiting and len(there) > cohort:
            assert max(last[name] for name in asked) <= min(last[name] for name in waiting)
        last |= dict.fromkeys(asked, round_)
        # Whether they answer does not matter: a vehicle that fails does not hold the others up.
        memory = remember.remember(memory, Outcome(round_, tuple(sorted(asked)), (), how))


def test_everybody_is_asked_once_before_anybody_is_asked_twice() -> None:
    how, memory = FederationConfig(sampler="round-robin", cohort=2), dict[str, dict[str, float]]()
    counts: Counter[str] = Counter()
    for round_ in range(1, 28):
        asked = asked_in(round_, FLEET, memory, how)
        counts.update(asked)
        assert max(counts.values()) - min(counts[name] for name in FLEET) <= 1
        outcome = Outcome(round_, tuple(asked), (Accepted("car-0", 1, 1, 1.0),), how)
        memory = SAMPLERS["round-robin"].remember(memory, outcome)  # type: ignore[assignment]
    orders = {tuple(asked_in(1, FLEET, {}, how)) for _ in range(3)}
    assert len(orders) == 1
    firsts = {frozenset(sample_cohort(FLEET, how, seed=seed, round_=1).asked) for seed in range(20)}
    assert len(firsts) > 5  # chance decides who is first


def test_who_comes_back_has_no_rounds_to_catch_up() -> None:
    how = FederationConfig(sampler="round-robin", cohort=1)
    memory = {"last": {name: 90.0 + k for k, name in enumerate(FLEET)} | {"car-4": 3.0}}
    assert asked_in(100, FLEET, memory, how) == {"car-4"}
    after = SAMPLERS["round-robin"].remember(memory, Outcome(100, ("car-4",), (), how))
    assert asked_in(101, FLEET, after, how) == {"car-0"}


def test_each_by_itself() -> None:
    how = FederationConfig(sampler="poisson", cohort=3)
    drawn = [asked_in(round_, FLEET, {}, how) for round_ in range(4000)]
    sizes = Counter(map(len, drawn))
    counts = Counter(name for asked in drawn for name in asked)
    for name in FLEET:  # each with probability 1/3: deviation 30
        assert abs(counts[name] - 4000 / 3) < 120
    both = sum({"car-0", "car-1"} <= asked for asked in drawn)
    assert abs(both - 4000 / 9) < 80  # and independently
    # Binomial(9, 1/3): nobody in (2/3)^9 = 2.6 % of the rounds.
    assert 60 < sizes[0] < 150
    assert len(sizes) > 6


def test_the_probability_is_that_of_the_experiment_not_of_a_rounded_number() -> None:
    how = FederationConfig(sampler="poisson", cohort=0.25)  # 2.25 of 9
    drawn = [sample_cohort(FLEET, how, seed=1, round_=r) for r in range(4000)]
    assert abs(sum(len(cohort.asked) for cohort in drawn) - 4000 * 2.25) < 4 * 82
    assert all(cohort.target == len(cohort.asked) for cohort in drawn)  # all are waited for


def test_with_all_wished_for_all_are_asked_and_of_nobody_nobody() -> None:
    everybody = FederationConfig(sampler="poisson", cohort=1.0)
    assert asked_in(1, FLEET, {}, everybody) == set(FLEET)
    assert asked_in(1, {}, {}, everybody) == set()
    assert sample_cohort(FLEET, everybody, seed=0, round_=1).target == 9


def test_the_generator_is_the_round_s() -> None:
    how = FederationConfig(sampler="poisson", cohort=3)
    numbers = rng.generator(5, 7, purpose="cohort").random(9)
    expected = {name for name, x in zip(sorted(FLEET), numbers, strict=True) if x < 3 / 9}
    assert set(sample_cohort(FLEET, how, seed=5, round_=7).asked) == expected
