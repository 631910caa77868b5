"""How long a change may be, by what the fleet's have been: no operator has to know it before."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import pytest
import torch

from fleetseg.config import FederationConfig, TrainingConfig
from fleetseg.federation.cohort import Cohort
from fleetseg.federation.collect import RoundCollector
from fleetseg.federation.messages import Enrolment, Failure, Update
from fleetseg.federation.step_norms import norms_allowed
from fleetseg.federation.tensors import Layout, ModelState
from fleetseg.learning.local import num_steps

CARS = {name: Enrolment(name, 10, 100, (100,)) for name in "abcd"}


@dataclass(frozen=True)
class Round:
    step_norms: Mapping[str, float] = field(default_factory=dict)


def test_the_bound_is_a_multiple_of_the_median() -> None:
    rounds = [Round({"a": 1.0, "b": 2.0, "c": 100.0})]
    assert norms_allowed(rounds, CARS, 10) == dict.fromkeys("abcd", 20.0)


def test_of_too_few_nothing_is_known() -> None:
    assert norms_allowed([], CARS, 10) == {}
    assert norms_allowed([Round({"a": 1.0, "b": 1.0})], CARS, 10) == {}
    assert norms_allowed([Round({"a": 1.0, "b": 1.0}), Round({"a": 3.0})], CARS, 10)["d"] == 10.0


def test_rounds_that_are_long_ago_do_not_count() -> None:
    old, new = Round(dict.fromkeys("abc", 100.0)), Round(dict.fromkeys("abc", 1.0))
    assert norms_allowed([old] * 50 + [new] * 5, CARS, 10)["a"] == 10.0


def test_rounds_without_an_answer_are_passed_over() -> None:
    assert norms_allowed([Round(dict.fromkeys("abc", 1.0)), *[Round()] * 9], CARS, 10)["a"] == 10.0


def test_vehicles_without_labels_have_a_median_of_their_own() -> None:
    unlabelled = {name: Enrolment(name, 10, 0, (0,)) for name in "uvw"}
    rounds = [Round({**dict.fromkeys("abcd", 1.0), **dict.fromkeys("uvw", 0.001)})]
    bounds = norms_allowed(rounds, {**CARS, **unlabelled}, 10)
    assert (bounds["a"], bounds["u"]) == (10.0, pytest.approx(0.01))


def test_changes_of_nothing_bound_nobody() -> None:
    assert norms_allowed([Round(dict.fromkeys("abcd", 0.0))], CARS, 10) == {}


Open = Callable[..., RoundCollector]


@pytest.fixture
def open_round(layout: Layout, base: ModelState, enrolled: dict[str, Enrolment]) -> Open:
    def make(bounds: Mapping[str, float] | None) -> RoundCollector:
        collector = RoundCollector(layout, FederationConfig())
        cohort = Cohort(tuple(sorted(enrolled)), len(enrolled))
        collector.open(1, cohort, enrolled, base, step_norms=bounds)
        return collector

    return make


def longer(update: Update, times: float) -> Update:
    change = update.change
    values_F = torch.full_like(change.values_F, 0.0)
    values_F[0] = times
    return replace(update, change=replace(change, values_F=values_F))


def test_a_norm_is_by_the_steps_that_a_vehicle_s_images_make(
    open_round: Open, honest: Callable[[str], Update], enrolled: dict[str, Enrolment]
) -> None:
    collector = open_round({})
    # That it says that it took more steps changes nothing.
    assert collector.add(replace(longer(honest("car-1"), 3.0), num_steps=1000)) is None
    steps = num_steps(enrolled["car-1"].num_images, TrainingConfig())
    assert collector.step_norms == {"car-1": 3.0 / steps}


def test_what_is_too_long_is_refused_and_counts_for_the_next_bound(
    open_round: Open, honest: Callable[[str], Update], enrolled: dict[str, Enrolment]
) -> None:
    steps = num_steps(enrolled["car-1"].num_images, TrainingConfig())
    collector = open_round({"car-1": 2.0 / steps})
    assert collector.add(longer(honest("car-2"), 9.0)) is None  # of which nothing is known
    failure = collector.add(longer(honest("car-1"), 2.01))
    assert isinstance(failure, Failure)
    assert (failure.kind, failure.reason) == ("refused", "norm")
    assert "fleet.max_times_norm" in failure.detail
    assert set(collector.step_norms) == {"car-1", "car-2"}
    assert [a.client_id for a in collector.accepted] == ["car-2"]


def test_where_all_grow_at_once_one_round_is_lost(
    open_round: Open, honest: Callable[[str], Update], enrolled: dict[str, Enrolment]
) -> None:
    before = Round(dict.fromkeys(enrolled, 0.001))
    for lost in (True, False):
        collector = open_round(norms_allowed([before], enrolled, 10))
        failures = [collector.add(longer(honest(client), 5.0)) for client in enrolled]
        assert [failure is not None for failure in failures] == [lost] * len(enrolled)
        before = Round(collector.step_norms)


def test_nobody_measures_where_there_is_no_bound(
    open_round: Open, honest: Callable[[str], Update]
) -> None:
    collector = open_round(None)
    assert collector.add(longer(honest("car-1"), 1e3)) is None
    assert collector.step_norms == {}


def test_a_liar_alone_moves_no_bound_far() -> None:
    honest_rounds = [Round({"a": 1.0, "b": 1.2, "c": 0.8})]
    lied = [Round({"a": 1.0, "b": 1.2, "c": 0.8, "d": math.pow(10, 6)})]
    known = norms_allowed(honest_rounds, CARS, 10)["a"]
    assert norms_allowed(lied, CARS, 10)["a"] <= 1.2 * known
