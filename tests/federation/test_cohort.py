"""Samplers: sizes, uniformity, and the same cohort for the same seed and round."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.experiments import tiny_experiment
from tests.toys.sampler import TOY_LEAST

import fleetseg
from fleetseg.clients import open_fleet_data
from fleetseg.config import FederationConfig
from fleetseg.engines.faults import virtual_seconds
from fleetseg.errors import ConfigError
from fleetseg.federation.cohort import SAMPLERS, sample_cohort, size_of
from fleetseg.federation.messages import Enrolment
from fleetseg.runs import baselines


def choose(
    fleet: Mapping[str, Enrolment], cohort: float, *, seed: int, round_: int, **how: Any
) -> tuple[str, ...]:
    """Say who is asked, in order of their names."""
    settings = FederationConfig(cohort=cohort, **how)
    return tuple(sorted(sample_cohort(fleet, settings, seed=seed, round_=round_).asked))


FLEET = {f"car-{i:02d}": Enrolment(f"car-{i:02d}", 1 + i, 9, (9,)) for i in range(20)}


@pytest.mark.parametrize(
    ("cohort", "count"),
    [(1.0, 20), (1, 1), (0.5, 10), (0.25, 5), (0.01, 1), (2, 2), (7.0, 7), (20, 20), (1000, 20)],
)
def test_size(cohort: float, count: int) -> None:
    chosen = choose(FLEET, cohort, seed=1, round_=1)
    assert len(chosen) == len(set(chosen)) == count
    assert set(chosen) <= set(FLEET)
    assert list(chosen) == sorted(chosen)


@pytest.mark.parametrize(
    ("cohort", "over", "count"),
    [(10, 1.0, 10), (10, 1.1, 11), (10, 1.3, 13), (10, 2.0, 20), (15, 2.0, 20), (0.5, 1.5, 15),
     (1.0, 1.5, 20), (3, 1.01, 4), (1.0, 1.2, 20), (1, 1.2, 2), (0.05, 1.2, 2),
     (7, 1.0 + 1e-12, 7)],
)  # fmt: skip
def test_more_are_asked_than_are_wanted(cohort: float, over: float, count: int) -> None:
    settings = FederationConfig(cohort=cohort, over_selection=over)
    drawn = sample_cohort(FLEET, settings, seed=1, round_=1)
    assert drawn.target == size_of(cohort, 20)
    chosen = drawn.asked
    assert len(chosen) == len(set(chosen)) == count
    assert set(chosen) <= set(FLEET)


@given(st.floats(0.001, 50), st.floats(1, 2), st.integers(0, 30))
def test_a_cohort_is_never_more_than_there_are(cohort: float, over: float, available: int) -> None:
    fleet = {f"car-{k}": Enrolment(f"car-{k}", 1, 1, (1,)) for k in range(available)}
    wanted = size_of(cohort, available)
    assert min(1, available) <= wanted <= available
    assert wanted <= len(choose(fleet, cohort, seed=0, round_=1, over_selection=over)) <= available


def test_an_empty_fleet() -> None:
    assert choose({}, 0.5, seed=0, round_=1) == ()


@settings(max_examples=60, deadline=None)
@given(
    st.permutations(list(FLEET)), st.floats(0.05, 1.0), st.integers(0, 2**40), st.integers(1, 10**6)
)
def test_a_pure_function_whatever_the_order(
    fleet: list[str], cohort: float, seed: int, round_: int
) -> None:
    shuffled = {name: FLEET[name] for name in fleet}
    drawn = choose(shuffled, cohort, seed=seed, round_=round_)
    assert drawn == choose(FLEET, cohort, seed=seed, round_=round_)


def test_rounds_and_seeds_differ() -> None:
    by_round = {choose(FLEET, 5, seed=0, round_=r) for r in range(1, 101)}
    by_seed = {choose(FLEET, 5, seed=s, round_=1) for s in range(100)}
    assert len(by_round) > 95
    assert len(by_seed) > 95


def test_uniform_over_clients_and_pairs() -> None:
    rounds, size = 4000, 5
    alone, pairs = Counter[str](), Counter[tuple[str, str]]()
    for round_ in range(rounds):
        chosen = choose(FLEET, size, seed=3, round_=round_)
        alone.update(chosen)
        pairs.update((a, b) for a in chosen for b in chosen if a < b)
    expected = rounds * size / 20
    # Each count is binomial(4000, 1/4); without replacement sum (n - np)^2 / (np(1-p)) ~ chi2(19).
    chi2 = sum((alone[c] - expected) ** 2 for c in FLEET) / (expected * 0.75) * 19 / 20
    assert chi2 < 43.8  # p = 0.001
    expected_pair = rounds * (5 * 4) / (20 * 19)
    assert len(pairs) == 190
    deviations = [(n - expected_pair) / expected_pair**0.5 for n in pairs.values()]
    assert max(map(abs, deviations)) < 4.5


def test_global_generators_are_untouched() -> None:
    before = random.getstate(), torch.random.get_rng_state(), np.random.get_state()[1]  # noqa: NPY002
    choose(FLEET, 5, seed=0, round_=1)
    after = random.getstate(), torch.random.get_rng_state(), np.random.get_state()[1]  # noqa: NPY002
    assert before[0] == after[0]
    assert torch.equal(before[1], after[1])
    assert np.array_equal(before[2], after[2])


def test_the_largest_goes_first_and_names_break_ties() -> None:
    enrolled = {c: Enrolment(c, n, n, (n,)) for c, n in {"a": 3, "b": 9, "c": 9, "d": 1}.items()}
    drawn = sample_cohort(enrolled, FederationConfig(), seed=0, round_=1)
    assert drawn.asked == ("b", "c", "a", "d")
    assert drawn.target == 4


# Every sampler

NUMBERS = st.fixed_dictionaries(
    {},
    optional={
        name: st.dictionaries(st.sampled_from(list(FLEET)), st.floats(1, 100), max_size=20)
        for name in ("loss", "last", "times")
    },
)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.sampled_from(list(FLEET)), min_size=1, unique=True),
    st.integers(1, 20),
    st.integers(1, 1000),
    st.integers(0, 2**40),
    NUMBERS,
    st.sampled_from(sorted(SAMPLERS)),
)
def test_whoever_is_there_in_whatever_order_the_cohort_is_whole(
    there: list[str],
    cohort: int,
    round_: int,
    seed: int,
    memory: dict[str, dict[str, float]],
    sampler: str,
) -> None:
    memory.setdefault("last", {}).update(dict.fromkeys(memory.get("loss", {}), 1.0))
    how = FederationConfig(cohort=cohort, sampler=sampler)

    def drawn(names: list[str]) -> tuple[str, ...]:
        fleet = {name: Enrolment(name, 1 + hash_of(name), 9, (hash_of(name), 3)) for name in names}
        return sample_cohort(fleet, how, seed=seed, round_=round_, memory=memory).asked

    asked = drawn(there)
    assert len(set(asked)) == len(asked)
    assert set(asked) <= set(there)
    assert len(asked) == min(cohort, len(there)) or not SAMPLERS[sampler].is_sized
    assert drawn(there[::-1]) == drawn(sorted(there)) == asked


def hash_of(name: str) -> int:
    return int(name[-2:]) ** 2 % 7


@pytest.mark.parametrize("sampler", sorted(SAMPLERS))
def test_seeds_and_rounds_differ(sampler: str) -> None:
    by_round = {choose(FLEET, 5, seed=0, round_=r, sampler=sampler) for r in range(1, 41)}
    by_seed = {choose(FLEET, 5, seed=s, round_=1, sampler=sampler) for s in range(40)}
    assert min(len(by_round), len(by_seed)) > 20


@pytest.mark.parametrize("sampler", sorted(SAMPLERS))
def test_a_surplus_is_drawn_as_the_cohort_is(sampler: str) -> None:
    drawn = sample_cohort(
        FLEET, FederationConfig(cohort=4, over_selection=1.5, sampler=sampler), seed=1, round_=1
    )
    if SAMPLERS[sampler].is_sized:
        assert (len(drawn.asked), drawn.target) == (6, 4)
    else:  # all are waited for
        assert drawn.target == len(drawn.asked)


def test_who_is_slow_is_asked_less_where_times_are_simulated(tmp_path: Path) -> None:
    sources = [{"conditions": ["day"], "frames_per_drive": 2}]
    federation = {
        "rounds": 6, "cohort": 2, "sampler": "oort", "faults": {"stragglers": 0.5},
        "oort": {
            "explore": 1.0, "explore_decay": 0.9, "explore_least": 0.0, "slow_penalty": 50.0,
            "pace": 0.0,
        },
    }  # fmt: skip
    experiment = tiny_experiment(
        tmp_path / "cache", data={"sources": sources}, federation=federation
    )
    run = fleetseg.run(experiment, out=tmp_path / "run")
    fleet = open_fleet_data(experiment).enrolled
    seconds = {c: virtual_seconds(experiment, 0, e) for c, e in fleet.items()}
    fast = {c for c, s in seconds.items() if s == min(seconds.values())}
    assert 2 <= len(fast) < len(fleet)
    # All have been tried once, and then only the fast are used.
    assert {c for record in run.records for c in record.cohort} == set(fleet)
    assert all(set(record.cohort) <= fast for record in run.records[-2:])


# A sampler is one dataclass and one dict line


def test_one_from_outside_is_asked_unless_everybody_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SAMPLERS, "least", TOY_LEAST)
    few = choose(FLEET, 3, seed=0, round_=1, sampler="least")
    assert few == ("car-00", "car-01", "car-02")
    assert len(choose(FLEET, 1.0, seed=0, round_=1, sampler="least")) == 20


def test_it_is_named_in_the_experiment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sources = [
        {"conditions": ["day"], "cities": ["amber"], "frames_per_drive": 2},
        {"conditions": ["day"], "cities": ["birch", "coral"], "frames_per_drive": 3},
    ]
    experiment = tiny_experiment(
        tmp_path / "cache",
        data={"sources": sources},
        federation={"rounds": 3, "cohort": 1, "sampler": "least"},
    )
    with pytest.raises(ConfigError, match=r"unknown sampler 'least'; expected one of: "):
        fleetseg.run(experiment, out=tmp_path / "run")
    monkeypatch.setitem(SAMPLERS, "least", TOY_LEAST)
    run = fleetseg.run(experiment, out=tmp_path / "run")
    asked = [record.accepted for record in run.records]
    assert asked[0] == ("synthetic-amber-day",)
    assert len(set(asked)) == 3  # it remembers who has trained
    assert baselines.federated_images(experiment, open_fleet_data(experiment)) == 2 + 3 + 3
