"""Whose cluster is whose: newcomers, liars, who has nothing to go by, and where clusters begin."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from tests.federation.clustered_fleet import HEAD, KINDS, LEFT, RIGHT, TwoKinds, go, plan, start

from fleetseg.federation.checkpoint import ServerState
from fleetseg.federation.cluster_state import (
    chosen,
    headline,
    members,
    own_states,
    sent_to,
    sent_to_choose,
    with_members,
    with_own,
)
from fleetseg.federation.fleet_facts import wanted_facts
from fleetseg.federation.plan import Plan
from fleetseg.federation.tensors import ModelState

NOTHING = (0, 0)


def first(plan_: Plan, kinds: Mapping[str, tuple[int, int]] = KINDS) -> ServerState:
    return plan_.with_facts(start(plan_), TwoKinds(kinds=kinds).available())


def test_how_many_is_chosen_by_silhouette() -> None:
    state = first(plan({"count": 0}))
    assert members(state) == {"a": 0, "b": 1, "c": 0, "d": 1}
    assert state.clusters["centroids"].tolist() == [[0.9, 0.1], [0.1, 0.9]]


@pytest.mark.parametrize("count", [0, 3])
@pytest.mark.parametrize(
    "kinds", [{"a": RIGHT}, dict.fromkeys("abcd", RIGHT), dict.fromkeys("ab", NOTHING)]
)
def test_where_all_are_alike_there_is_one_cluster(
    count: int, kinds: dict[str, tuple[int, int]]
) -> None:
    state = first(plan({"count": count}), kinds)
    assert members(state) == dict.fromkeys(kinds, 0)
    assert len(own_states(state)) == 1


def test_who_comes_later_joins_the_nearest_and_clusters_stay() -> None:
    described = plan({"count": 2})
    state = replace(first(described), round=3)
    later = {**KINDS, "e": (4, 6), "f": (6, 4), "g": (5, 5)}
    state = described.with_facts(state, TwoKinds(kinds=later).available())
    of = members(state)
    assert (of["e"], of["f"], of["g"]) == (1, 0, 0)  # the first of two that are as near
    assert state.clusters["centroids"].tolist() == [[0.9, 0.1], [0.1, 0.9]]


def test_who_reports_nothing_is_of_the_largest_cluster() -> None:
    described = plan({"count": 2})
    state = first(described, {"a": RIGHT, "b": LEFT, "c": LEFT, "x": NOTHING})
    assert members(state)["x"] == 1
    state = first(described, {"a": RIGHT, "b": LEFT, "x": NOTHING})
    assert members(state)["x"] == 0  # of equally large ones the first


def test_a_vehicle_does_not_change_clusters_by_another_report() -> None:
    described = plan({"count": 2})
    state = first(described)
    turned = {client: (LEFT if kind == RIGHT else RIGHT) for client, kind in KINDS.items()}
    again = described.with_facts(replace(state, round=1), TwoKinds(kinds=turned).available())
    assert members(again) == members(state)


def test_a_report_far_from_all_others_is_a_cluster_of_its_own_and_no_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The worst that a liar can do with what it reports: the others are one cluster, as FedAvg."""
    from fleetseg.federation.fleet_facts import FLEET_FACTS, Fact

    fact = Fact(lambda enrolled: np.zeros(1), lambda pairs: np.zeros(1), (1,))
    monkeypatch.setitem(FLEET_FACTS, "styles", fact)
    described = plan({"count": 0}, clustered_by="styles")
    assert wanted_facts(described.experiment) == ("styles",)
    places = {"a": 0.0, "b": 1.0, "c": 0.1, "d": 3e38}
    enrolled = {
        c: replace(e, facts={"styles": np.array([[places[c]]], np.float32)})
        for c, e in TwoKinds().available().items()
    }
    assert members(described.with_facts(start(described), enrolled)) == {
        "a": 0, "b": 0, "c": 0, "d": 1,
    }  # fmt: skip


def test_the_headline_is_the_mean_by_vehicles_of_values_and_the_largest_of_counters() -> None:
    described = plan({"count": 2, **HEAD})
    state = with_own(
        first(described),
        {0: ModelState(torch.tensor([4.0]), _none()), 1: ModelState(torch.tensor([-2.0]), _none())},
    )
    state = with_members(state, {"e": 0, "f": 0})  # four of the first, two of the second
    assert headline(state, described.exchange).values_F.tolist() == [0, 0, 2]
    assert state.model.values_F.tolist() == [0, 0, 0]


def _none() -> torch.Tensor:
    return torch.empty(0, dtype=torch.int64)


def by_loss(count: int, **changes: Any) -> Plan:
    return plan({"count": count, **changes}, clustered_by="loss")


def with_start(plan_: Plan, values: list[float]) -> ServerState:
    model = ModelState(torch.tensor(values), _none())
    return plan_.with_facts(replace(start(plan_), model=model), TwoKinds().available())


def test_clusters_by_loss_begin_apart_and_near_the_start() -> None:
    state = with_start(by_loss(3), [100.0, 100.0, 0.0])
    own = [tensors.values_F for tensors in own_states(state)]
    assert len({tuple(values_F.tolist()) for values_F in own}) == 3
    for values_F in own:
        assert 0 < (values_F[:2] - 100).abs().max() < 50  # noise of 10 for each
        assert values_F[2] == 0  # in units of its own tensor's size
    again = with_start(by_loss(3), [100.0, 100.0, 0.0])
    assert [t.digest() for t in own_states(again)] == [t.digest() for t in own_states(state)]


def test_a_single_cluster_by_loss_begins_as_the_model() -> None:
    assert own_states(with_start(by_loss(1), [1.0, 2.0, 3.0]))[0].values_F.tolist() == [1, 2, 3]


@pytest.mark.parametrize("tensors", [{}, HEAD], ids=["all", "head"])
def test_what_is_sent_to_choose_from_holds_every_cluster_s_model(tensors: dict[str, Any]) -> None:
    described = by_loss(3, **tensors)
    state, exchange = with_start(described, [1.0, 2.0, 3.0]), described.exchange
    sent = sent_to_choose(state, exchange)
    assert sent.values_F.numel() == exchange.down.num_floats
    for k in range(3):
        assert chosen(sent, exchange, k).digest() == sent_to(state, exchange, k).digest()
    assert sent_to(state, exchange, 1).digest() != sent_to(state, exchange, 2).digest()


def test_clusters_are_remembered_by_name_for_those_who_left() -> None:
    log = go(TwoKinds(), plan({"count": 2}, rounds=1))
    state = with_members(log.states[-1], {"e": 1})
    assert state.memory["clusters"]["of"] == {"a": 0, "b": 1, "c": 0, "d": 1, "e": 1}
