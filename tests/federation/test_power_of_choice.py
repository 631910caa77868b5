"""Power of choice: candidates by their images, then the highest losses."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from fleetseg.config import FederationConfig, PowerOfChoiceConfig
from fleetseg.federation.cohort import SAMPLERS, sample_cohort
from fleetseg.federation.known import Accepted, Memory, Outcome
from fleetseg.federation.messages import Enrolment

FLEET = {c: Enrolment(c, n, 9, (9,)) for c, n in zip("abcdef", [1, 2, 3, 4, 5, 6], strict=True)}
LOSSES: Memory = {"loss": {"a": 6.0, "b": 5.0, "c": 4.0, "d": 3.0, "e": 2.0, "f": 1.0}}


def draw(
    candidates: int, cohort: int = 2, memory: Memory = LOSSES, round_: int = 1, seed: int = 0
) -> str:
    choice = PowerOfChoiceConfig(candidates=candidates)
    how = FederationConfig(sampler="power of choice", cohort=cohort, power_of_choice=choice)
    asked = sample_cohort(FLEET, how, seed=seed, round_=round_, memory=memory).asked
    return "".join(sorted(asked))


def test_of_all_as_candidates_the_highest_losses_are_asked() -> None:
    assert {draw(6, round_=r) for r in range(20)} == {"ab"}
    assert draw(99) == "ab"


def test_candidates_come_in_proportion_to_their_images_and_not_uniformly() -> None:
    """With as many candidates as places, the losses decide nothing."""
    counts = Counter(name for r in range(4000) for name in draw(2, round_=r))
    shares = [counts[name] / 4000 for name in "abcdef"]
    assert shares == pytest.approx([2 * n / 21 for n in range(1, 7)], abs=0.03)  # uniform: 1/3


def test_twice_as_many_candidates_as_places_unless_told_otherwise() -> None:
    assert [draw(0, round_=r) for r in range(50)] == [draw(4, round_=r) for r in range(50)]
    # The two highest of four candidates: never the lowest ones of the fleet together.
    assert "ef" not in {draw(4, round_=r) for r in range(200)}
    assert draw(1, cohort=3)  # fewer candidates than places: as many as places


def test_who_has_no_loss_yet_comes_first() -> None:
    memory = {"loss": {"a": 1e9, "b": 1e9, "c": 1e9, "d": 1e9}}
    assert draw(6, memory=memory) == "ef"
    firsts = {draw(6, memory={}, round_=r) for r in range(60)}
    assert len(firsts) > 8  # chance decides among equals, not the name


def test_it_remembers_the_last_loss_and_keeps_that_of_the_absent() -> None:
    remember, how = SAMPLERS["power of choice"].remember, FederationConfig()
    memory = remember({}, Outcome(1, ("a", "b"), (Accepted("a", 1, 1, 0.5),), how))
    memory = remember(memory, Outcome(2, ("c",), (Accepted("c", 1, 1, 0.25),), how))
    memory = remember(memory, Outcome(3, ("a",), (Accepted("a", 1, 1, 0.125),), how))
    assert memory["loss"] == {"a": 0.125, "c": 0.25}
    assert remember({}, Outcome(1, ("a",), (Accepted("a", 1, 1, 0.5),), how)) == {
        "loss": {"a": 0.5}
    }


def test_sizes_are_exact() -> None:
    generator = np.random.Generator(np.random.Philox(0))
    for cohort in range(1, 6):
        asked = draw(int(generator.integers(0, 9)), cohort=cohort)
        assert len(set(asked)) == len(asked) == cohort
