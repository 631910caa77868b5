"""Measures: only what is asked for is sent, and it is checked before an update counts."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from fleetseg.config import FederationConfig
from fleetseg.federation.cohort import Cohort
from fleetseg.federation.collect import RoundCollector
from fleetseg.federation.measures import check_measures, wanted_measures
from fleetseg.federation.messages import Enrolment, Update
from fleetseg.federation.tensors import Layout, ModelState
from fleetseg.federation.weights import WEIGHTS, Weighting
from fleetseg.federation.wire import decode_update, encode_update, update_meta


@pytest.fixture
def asks(monkeypatch: pytest.MonkeyPatch) -> FederationConfig:
    """Weights that take both measures."""
    weighting = Weighting(lambda known: dict.fromkeys(known.enrolled, 1), measures=tuple(GOOD))
    monkeypatch.setitem(WEIGHTS, "asks", weighting)
    return FederationConfig(weights="asks")


GOOD = {"received_loss": 0.75, "trained_loss": 0.5}


def test_nothing_is_asked_for_that_nothing_takes(honest: Callable[[str], Update]) -> None:
    assert wanted_measures(FederationConfig()) == ()
    check_measures({}, FederationConfig())
    assert "measures" not in update_meta(honest("car-0"))


@pytest.mark.parametrize(
    "told",
    [
        {},
        {"received_loss": 1.0},
        {**GOOD, "more": 1.0},
        {**GOOD, "trained_loss": math.nan},
        {**GOOD, "trained_loss": -math.inf},
        {**GOOD, "trained_loss": 1e10},
        {**GOOD, "trained_loss": "1"},
        {**GOOD, "trained_loss": True},
        {**GOOD, "trained_loss": [1.0]},
        {**GOOD, "trained_loss": None},
        {1: 2.0},
        {1: 2.0, **GOOD},
        [1.0, 2.0],
        None,
    ],
    ids=str,
)
def test_an_update_with_others_is_refused_and_nothing_of_it_counts(
    told: Any,
    asks: FederationConfig,
    layout: Layout,
    base: ModelState,
    enrolled: dict[str, Enrolment],
    honest: Callable[[str], Update],
) -> None:
    def folded(*updates: Update) -> RoundCollector:
        collector = RoundCollector(layout, asks)
        collector.open(1, Cohort(tuple(enrolled), 10), enrolled, base)
        for update in updates:
            collector.add(update)
        return collector

    good = replace(honest("car-0"), measures=GOOD)
    collector = folded(good, replace(honest("car-1"), measures=told))
    assert [f.reason for f in collector.failures] == ["measures"]
    assert collector.outcome().accepted[0].measures == GOOD
    assert collector.take_mean_delta().tobytes() == folded(good).take_mean_delta().tobytes()


def test_they_cross_the_wire_as_they_are_and_the_size_stays(
    honest: Callable[[str], Update], layout: Layout
) -> None:
    update = honest("car-0")
    measured = replace(update, measures={"received_loss": 0.1 + 0.2, "trained_loss": 1e-300})
    data = encode_update(measured, layout)
    assert decode_update(data, layout).measures == measured.measures
    assert len(data) == len(encode_update(update, layout))
