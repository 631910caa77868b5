"""What a vehicle says of its cluster is bounded, and its update is checked against that one's."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from tests.federation.clustered_fleet import (
    LEFT,
    RIGHT,
    WISHES,
    TwoKinds,
    go,
    plan,
    start,
    values,
)
from tests.federation.scripted_fleet import Reply

from fleetseg.federation.cluster_state import chosen, members, own_states
from fleetseg.federation.messages import Broadcast
from fleetseg.federation.plan import Plan

BY_LOSS = plan({"count": 2}, clustered_by="loss", rounds=12)


class Choosing(TwoKinds):
    """Vehicles that take the model that is nearest to where they want to be."""

    def half_way(self, client: str, broadcast: Broadcast) -> list[Reply]:
        models = [chosen(broadcast.state, BY_LOSS.exchange, k) for k in range(2)]
        wish_F = torch.tensor(WISHES[self.kinds[client]])
        far = [float((model.values_F - wish_F).square().sum()) for model in models]
        k = far.index(min(far))
        said = {"cluster": float(k)}
        return [self.towards(client, broadcast, models[k].values_F, measures=said)]


def begin(plan_: Plan) -> Any:
    """Two models on both sides of the middle."""
    state = plan_.with_facts(start(plan_), TwoKinds().available())
    clusters = dict(state.clusters)
    clusters["0/values"] = torch.tensor([0.1, 0.0, 0.0])
    clusters["1/values"] = torch.tensor([-0.1, 0.0, 0.0])
    from dataclasses import replace

    return replace(state, clusters=clusters)


def test_vehicles_that_choose_come_to_both_places() -> None:
    log = go(Choosing(), BY_LOSS, begin(BY_LOSS))
    state = log.states[-1]
    assert members(state) == {"a": 0, "b": 1, "c": 0, "d": 1}
    for own, kind in zip(own_states(state), (RIGHT, LEFT), strict=True):
        assert values(own) == pytest.approx(WISHES[kind], abs=1e-2)
    assert log.records[0].clusters == {"a": 0, "b": 1, "c": 0, "d": 1}


@pytest.mark.parametrize(
    "said",
    [2.0, -1.0, 0.5, math.nan, math.inf, 1, True, "0", None, [0.0], 1e300],
    ids=repr,
)
def test_a_cluster_that_there_is_not_is_refused(said: Any) -> None:
    def lies(client: str, broadcast: Broadcast) -> list[Reply]:
        return [Choosing().towards(client, broadcast, torch.zeros(3), measures={"cluster": said})]

    log = go(Choosing(scripts={"d": lies}), BY_LOSS, begin(BY_LOSS))
    assert [(f.client_id, f.kind) for f in log.records[0].failures] == [("d", "refused")]
    assert log.records[0].failures[0].reason == "cluster"
    assert "d" not in members(log.states[-1])
    assert values(own_states(log.states[-1])[1]) == pytest.approx(WISHES[LEFT], abs=1e-2)


@pytest.mark.parametrize("measures", [{}, None, [1.0]], ids=repr)
def test_one_that_says_nothing_is_refused(measures: Any) -> None:
    def silent(client: str, broadcast: Broadcast) -> list[Reply]:
        return [Choosing().towards(client, broadcast, torch.zeros(3), measures=measures)]

    log = go(Choosing(scripts={"d": silent}), BY_LOSS, begin(BY_LOSS))
    assert [f.reason for f in log.records[0].failures] == ["cluster"]


def test_of_a_report_s_way_to_cluster_nothing_is_said() -> None:
    def says(client: str, broadcast: Broadcast) -> list[Reply]:
        fleet, model = TwoKinds(), broadcast.state.values_F
        return [fleet.towards(client, broadcast, model, measures={"cluster": 1.0})]

    log = go(TwoKinds(scripts={"a": says}), plan({"count": 2}, rounds=1))
    assert [(f.client_id, f.reason) for f in log.records[0].failures] == [("a", "measures")]


def test_a_liar_moves_the_cluster_that_it_names_by_no_more_than_an_update_may() -> None:
    """It claims the other cluster with a huge change: refused by its length, as anywhere."""

    def lies(client: str, broadcast: Broadcast) -> list[Reply]:
        far = torch.full((3,), 1000.0)
        return [Choosing().towards(client, broadcast, far, measures={"cluster": 0.0})]

    bounded = plan({"count": 2}, clustered_by="loss", max_update_norm=10.0)
    log = go(Choosing(scripts={"d": lies}), bounded, begin(bounded))
    assert {f.reason for record in log.records for f in record.failures} == {"norm"}
    assert values(own_states(log.states[-1])[0]) == pytest.approx(WISHES[RIGHT], abs=1e-2)
