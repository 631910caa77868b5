"""Who never answers is asked less and less, and does not hold a place for good."""

from __future__ import annotations

from collections.abc import Collection

import pytest

from fleetseg.config import FederationConfig
from fleetseg.federation.back_off import remember_missed, without_resting
from fleetseg.federation.cohort import SAMPLERS, sample_cohort
from fleetseg.federation.known import Accepted, Known, Memory, Outcome
from fleetseg.federation.messages import Enrolment

FLEET = {name: Enrolment(name, 10, 9, (9,)) for name in "abcdef"}
HOW = FederationConfig()


def after(asked: str, used: str, memory: Memory, round_: int) -> Memory:
    accepted = tuple(Accepted(name, 1, 10, 1.0) for name in used)
    return remember_missed(memory, Outcome(round_, tuple(asked), accepted, HOW))


def left(memory: Memory, round_: int, count: int = 2) -> str:
    return "".join(without_resting(Known(FLEET, round_, HOW, memory=memory), count).enrolled)


def test_rests_double_and_end_with_an_answer() -> None:
    memory, rests = {}, []
    round_ = 1
    for _ in range(8):
        memory = after("a", "", memory, round_)
        rest = next(r for r in range(100) if "a" in left(memory, round_ + 1 + r))
        rests.append(rest)
        round_ += rest + 1
    assert rests == [1, 2, 4, 8, 16, 32, 32, 32]
    memory = after("ab", "a", memory, round_)
    assert memory == {"missed": {"b": 1.0}, "asked": {"b": float(round_)}}
    assert left(memory, round_ + 1) == "acdef"
    assert after("b", "b", memory, round_ + 1) == {}


def test_where_too_few_are_left_the_next_to_be_due_are_asked() -> None:
    memory = after("abcde", "", {}, 1)
    memory = after("ab", "", memory, 3)
    assert left(memory, 4, count=1) == "cdef"
    memory = after("cdef", "", memory, 4)
    # Due again: a, b and f in round 6, the others in round 7; of equals, the first by name.
    assert left(memory, 5, count=2) == "ab"
    assert left(memory, 5, count=3) == "abf"
    assert left(memory, 5, count=6) == "abcdef"


def asks(sampler: str, silent: Collection[str], rounds: int = 200) -> dict[str, list[int]]:
    """In which rounds each was asked, if all have the same loss and the silent never answer."""
    how = FederationConfig(sampler=sampler, cohort=2, rounds=rounds)
    memory: Memory = {}
    found: dict[str, list[int]] = {name: [] for name in FLEET}
    for round_ in range(1, rounds + 1):
        asked = sample_cohort(FLEET, how, seed=0, round_=round_, memory=memory).asked
        for name in asked:
            found[name].append(round_)
        used = (Accepted(n, 1, 10, 1.0) for n in sorted(asked) if n not in silent)
        outcome = Outcome(round_, tuple(sorted(asked)), tuple(used), how)
        memory = SAMPLERS[sampler].remember(memory, outcome)
    return found


@pytest.mark.parametrize("sampler", ["power of choice", "oort"])
def test_who_never_answers_is_asked_a_few_times_only(sampler: str) -> None:
    """It was asked whenever it was a candidate: nothing is known of it."""
    found = asks(sampler, {"a", "b"})
    assert all(2 <= len(found[name]) <= 12 for name in "ab")
    assert all(len(found[name]) > 50 for name in "cdef")


@pytest.mark.parametrize("sampler", ["round-robin", "uniform", "weighted", "clusters", "poisson"])
def test_the_others_ask_it_as_often_as_anybody(sampler: str) -> None:
    found = asks(sampler, {"a", "b"})
    counts = [len(rounds) for rounds in found.values()]
    assert min(counts) > 30
