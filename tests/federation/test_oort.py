"""Oort: scores by hand, and the traps of its implementations."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetseg.config import FederationConfig, OortConfig
from fleetseg.federation.cohort import SAMPLERS, sample_cohort
from fleetseg.federation.known import Accepted, Known, Memory, Outcome
from fleetseg.federation.messages import Enrolment
from fleetseg.federation.oort import _pool, _scores, exploration, num_exploited

FLEET = {f"c{k}": Enrolment(f"c{k}", 10, 9, (9,)) for k in range(10)}
LOSSES = {f"c{k}": 1.0 + k for k in range(10)}
MEMORY: Memory = {"loss": LOSSES, "last": dict.fromkeys(LOSSES, 4.0)}


def how(**settings: float) -> FederationConfig:
    return FederationConfig(sampler="oort", cohort=4, oort=OortConfig(**settings))


def scores(
    memory: Memory, round_: int, settings: FederationConfig, **more: float
) -> dict[str, float]:
    seconds = (lambda e: more.get(e.client_id, 1.0)) if more else None
    known = Known(FLEET, round_, settings, memory=memory, seconds_of=seconds)
    tried = [name for name in FLEET if name in memory["loss"]]
    return _scores(known, tried, known.seconds())


def asked(memory: Memory, settings: FederationConfig, round_: int = 5, seed: int = 0) -> list[str]:
    return sorted(sample_cohort(FLEET, settings, seed=seed, round_=round_, memory=memory).asked)


def test_scores_by_hand() -> None:
    # Utilities 10 to 100, not clipped: (10 k) / 90; and sqrt(0.1 ln 5 / 4).
    bonus = math.sqrt(0.1 * math.log(5) / 4)
    by_hand = {f"c{k}": k / 9 + bonus for k in range(10)}
    assert scores(MEMORY, 5, how(clip=1.0)) == pytest.approx(by_hand)
    # Clipped at the sixth of ten: 70 is the most there is.
    clipped = scores(MEMORY, 5, how(clip=0.6))
    assert clipped["c6"] == clipped["c9"] == pytest.approx(1 + bonus)
    assert clipped["c3"] == pytest.approx(0.5 + bonus)


def test_who_was_not_used_for_long_gains() -> None:
    memory = {"loss": dict.fromkeys("ab", 1.0), "last": {"a": 2.0, "b": 90.0}}
    enrolled = {name: Enrolment(name, 1, 1, (1,)) for name in "ab"}
    told = _scores(Known(enrolled, 100, how(), memory=memory), "ab", {})
    assert told["a"] == pytest.approx(math.sqrt(0.1 * math.log(100) / 2))
    assert told["a"] > told["b"]


def test_utilities_are_of_all_images() -> None:
    memory = {"loss": {"a": 1.0, "b": 1.0}, "last": {"a": 1.0, "b": 1.0}}
    enrolled = {"a": Enrolment("a", 1, 1, (1,)), "b": Enrolment("b", 9, 1, (1,))}
    assert _scores(Known(enrolled, 1, how(), memory=memory), "ab", {}) == {"a": 0.0, "b": 1.0}


def test_the_slow_are_held_back_where_times_are_known() -> None:
    plain = scores(MEMORY, 5, how())
    slow = scores(MEMORY, 5, how(pace=0.5, slow_penalty=2.0), c9=4.0)
    assert slow["c9"] == pytest.approx(plain["c9"] / 16)  # (1 / 4)^2
    assert slow["c8"] == plain["c8"]
    lenient = scores(MEMORY, 5, how(pace=1.0), c9=4.0)
    assert lenient["c9"] == plain["c9"]


def test_exploration_shrinks_from_the_first_round_to_its_least() -> None:
    """Not the arguments of max, or the decay and the least, the wrong way around."""
    settings = OortConfig(explore=0.8, explore_decay=0.5, explore_least=0.3)
    assert [exploration(r, settings) for r in (1, 2, 3, 99)] == [0.8, 0.4, 0.3, 0.3]


@given(st.integers(1, 30), st.integers(1, 500), st.integers(0, 30), st.integers(0, 30))
def test_the_parts_of_a_cohort_are_there(count: int, round_: int, tried: int, untried: int) -> None:
    count = min(count, tried + untried)
    number = num_exploited(count, round_, tried, untried, OortConfig())
    assert 0 <= number <= tried
    assert 0 <= count - number <= untried


def test_the_cut_off_is_of_the_last_who_has_a_place() -> None:
    told = {"a": 1.0, "b": 0.8, "c": 0.77, "d": 0.5}
    assert list(_pool(told, 2, 0.95)) == ["a", "b", "c"]  # at least 0.76
    assert list(_pool(told, 4, 0.95)) == ["a", "b", "c", "d"]  # all fit: no index is beyond
    assert list(_pool(told, 1, 1.0)) == ["a"]
    assert _pool({}, 0, 0.95) == {}


def test_when_all_took_part_and_nearly_all_fit_it_still_draws() -> None:
    nine = FederationConfig(sampler="oort", cohort=9)
    assert len(asked(MEMORY, nine)) == 9
    assert len(asked(MEMORY, how(), round_=1)) == 4


def test_the_useful_are_preferred_and_the_unknown_explored() -> None:
    known = {name: loss for name, loss in LOSSES.items() if name < "c6"}
    memory: Memory = {"loss": known, "last": dict.fromkeys(known, 4.0)}
    settings = how(explore=0.5, explore_decay=1.0, explore_least=0.0)
    rounds = [asked(memory, settings, seed=seed) for seed in range(300)]
    assert all(sum(name >= "c6" for name in names) == 2 for names in rounds)
    counts = Counter(name for names in rounds for name in names)
    assert counts["c5"] + counts["c4"] == 600  # 0.95 of the second: nobody else is near
    assert all(counts[f"c{k}"] == pytest.approx(150, abs=45) for k in range(6, 10))


def test_equal_utilities_are_drawn_evenly_in_the_first_round_too() -> None:
    memory: Memory = {"loss": dict.fromkeys(FLEET, 0.0), "last": dict.fromkeys(FLEET, 1.0)}
    counts = Counter(n for s in range(500) for n in asked(memory, how(), round_=1, seed=s))
    assert all(counts[name] == pytest.approx(200, abs=50) for name in FLEET)


def test_no_global_generator_is_used() -> None:
    before = np.random.get_state()[1].tolist()  # type: ignore[index, union-attr]  # noqa: NPY002
    assert asked(MEMORY, how()) == asked(MEMORY, how())
    assert np.random.get_state()[1].tolist() == before  # type: ignore[index, union-attr]  # noqa: NPY002


def run(worths: list[float], **settings: float) -> Memory:
    memory: Memory = {}
    for round_, worth in enumerate(worths, start=1):
        accepted = (Accepted("c0", 1, 10, worth / 10),)
        memory = SAMPLERS["oort"].remember(
            memory, Outcome(round_, ("c0",), accepted, how(**settings))
        )
    return memory


def test_the_pace_slackens_while_utility_falls() -> None:
    settings = {"window": 2, "pace": 0.3, "pace_step": 0.2}
    assert run([4, 4, 3, 3], **settings)["pace"][""] == pytest.approx(0.5)
    assert run([3, 3, 4, 4], **settings)["pace"][""] == pytest.approx(0.3)
    assert run([4, 4, 3, 3, 2, 2], **settings)["pace"][""] == pytest.approx(0.7)
    assert run([9, 8, 7, 6, 5, 4, 3, 2, 1, 1], **settings)["pace"][""] <= 1
    assert len(run([1.0] * 50, **settings)["utility"]) == 4  # it does not grow with the run


def test_it_remembers_by_name() -> None:
    remember = SAMPLERS["oort"].remember
    memory = remember({}, Outcome(1, ("a", "b"), (Accepted("a", 1, 1, 0.5),), how()))
    memory = remember(memory, Outcome(2, ("c",), (Accepted("c", 1, 1, -0.25),), how()))
    assert memory["loss"] == {"a": 0.5, "c": 0.0}
    assert memory["last"] == {"a": 1.0, "c": 2.0}
