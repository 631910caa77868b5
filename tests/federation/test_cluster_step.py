"""The server's step of clusters: two places are reached where one model sits between them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.federation.clustered_fleet import (
    HEAD,
    KINDS,
    LEFT,
    RIGHT,
    WISHES,
    TwoKinds,
    go,
    plan,
    start,
    values,
)
from tests.federation.scripted_fleet import lost

from fleetseg.federation.checkpoint import ServerState, load_checkpoint, save_checkpoint
from fleetseg.federation.cluster_state import members, own_states

OPTIMISERS: list[dict[str, Any]] = [
    {},
    {"server_momentum": 0.5},
    {"server_optimiser": "adam", "server_lr": 0.1},
    {"server_optimiser": "yogi", "server_lr": 0.1},
    {"server_optimiser": "adagrad", "server_lr": 0.1},
    {"server_optimiser": "queue"},
    {"publishing": "ema"},
    {"publishing": "swa"},
    {"publishing": "last two"},
    {"statistics": "pooled"},
]


def same(one: Mapping[str, torch.Tensor], other: Mapping[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[n], other[n]) for n in one)


def test_one_model_sits_between_two_kinds_and_clusters_reach_both() -> None:
    between = go(TwoKinds(), plan()).states[-1]
    assert values(between.model) == pytest.approx([0, 2, 0], abs=1e-2)
    state = go(TwoKinds(), plan({"count": 2})).states[-1]
    assert members(state) == {"a": 0, "b": 1, "c": 0, "d": 1}
    for own, kind in zip(own_states(state), (RIGHT, LEFT), strict=True):
        assert values(own) == pytest.approx(WISHES[kind], abs=1e-2)
    assert values(state.model) == values(between.model)  # the headline: their mean


def test_what_clusters_have_in_common_is_the_fleet_s() -> None:
    """Only the head is theirs: it reaches both places, and the body sits between."""
    state = go(TwoKinds(), plan({"count": 2, **HEAD})).states[-1]
    assert values(state.model)[:2] == pytest.approx([0, 2], abs=1e-2)
    right, left = (values(own) for own in own_states(state))
    assert [*right, *left] == pytest.approx([4, -4], abs=1e-2)


def test_by_hand_with_weights_within_clusters() -> None:
    """One round, weights 1 and 3 in one cluster, 1 in the other: heads 2 and -2 at half way.

    The body's first value is (1 + 3) / 5 of 1/2 less 1/5 of it; the headline's head is the mean of
    two clusters with two vehicles and one.
    """
    fleet = TwoKinds(kinds={"a": RIGHT, "b": LEFT, "c": RIGHT}, images={"c": 3})
    state = go(fleet, plan({"count": 2, **HEAD}, rounds=1)).states[-1]
    assert [values(own) for own in own_states(state)] == [[2], [-2]]
    assert state.model.values_F.tolist() == pytest.approx([0.3, 1, 2 / 3])


@pytest.mark.parametrize("choices", OPTIMISERS, ids=str)
@pytest.mark.parametrize("tensors", [{}, HEAD], ids=["all", "head"])
def test_a_single_cluster_is_fedavg_bit_for_bit(
    choices: dict[str, Any], tensors: dict[str, Any]
) -> None:
    images = {"a": 1, "b": 2, "c": 5, "d": 3}
    alone = plan(**choices)
    clustered = plan({"count": 1, **tensors}, **choices)
    one = go(TwoKinds(images=images), alone)
    other = go(TwoKinds(images=images), clustered)
    for ours, theirs in zip(one.states, other.states, strict=True):
        assert ours.model.digest() == theirs.model.digest()
        assert alone.published(ours).digest() == clustered.published(theirs).digest()


@pytest.mark.parametrize("choices", OPTIMISERS, ids=str)
def test_known_clusters_of_all_tensors_are_runs_of_their_own(choices: dict[str, Any]) -> None:
    images = {"a": 1, "b": 2, "c": 5, "d": 3}
    described = plan({"count": 2}, **choices)
    together = go(TwoKinds(images=images), described).states[-1]
    published = described.cluster_models(together)
    assert published is not None
    for k, kind in enumerate((RIGHT, LEFT)):
        kinds = {client: counts for client, counts in KINDS.items() if counts == kind}
        alone = go(TwoKinds(kinds=kinds, images=images), plan(**choices)).states[-1]
        assert own_states(together)[k].digest() == alone.model.digest()
        theirs = plan(**choices).published(alone)
        assert published.model(k).digest() == theirs.digest()


@pytest.mark.parametrize("choices", OPTIMISERS[:6], ids=str)
def test_an_absent_cluster_keeps_all_that_is_its_own(choices: dict[str, Any]) -> None:
    """Its vehicles are lost from the third round on: tensors and moments are left alone."""

    def until_two(client: str, broadcast: Any) -> Any:
        fleet = TwoKinds()
        return (fleet.half_way if broadcast.round < 3 else lost)(client, broadcast)

    fleet = TwoKinds(scripts={"b": until_two, "d": until_two})
    log = go(fleet, plan({"count": 2, **HEAD}, rounds=6, **choices))
    second, last = log.states[1], log.states[-1]
    for vectors in ("clusters", "slots"):
        before, after = getattr(second, vectors), getattr(last, vectors)
        kept = {n: v for n, v in before.items() if n.startswith("1/")}
        assert kept or (vectors == "slots" and not choices)
        assert same(kept, {n: v for n, v in after.items() if n.startswith("1/")})
    assert len({state.clusters["0/values"].item() for state in log.states[1:]}) > 2
    assert [record.quorum for record in log.records] == [True] * 6
    assert log.records[-1].clusters == {"a": 0, "c": 0}


def test_a_round_without_a_quorum_moves_no_cluster() -> None:
    log = go(TwoKinds(scripts=dict.fromkeys("bcd", lost)), plan({"count": 2}, max_failed_rounds=99))
    assert not any(record.quorum for record in log.records)
    assert all(not own.values_F.any() for own in own_states(log.states[-1]))


def test_each_vehicle_is_sent_its_cluster_s_model_and_those_of_one_the_same() -> None:
    fleet = TwoKinds()
    state = go(fleet, plan({"count": 2, **HEAD}, rounds=3)).states[1]
    asks = fleet.asks[-1]
    assert asks["a"].state is asks["c"].state
    for client, k in members(state).items():
        sent = [*values(state.model)[:2], *values(own_states(state)[k])]
        assert values(asks[client].state) == sent


def test_clusters_are_resumed_from_a_checkpoint(tmp_path: Path) -> None:
    described = plan({"count": 2, **HEAD}, server_momentum=0.5, publishing="ema")
    log = go(TwoKinds(), described)
    path = save_checkpoint(tmp_path, log.states[4], {}, experiment="e", layout="l")
    state, _ = load_checkpoint(path, experiment="e", layout="l")
    resumed = go(TwoKinds(), described, state).states[-1]
    assert resumed.model.digest() == log.states[-1].model.digest()
    for vectors in ("clusters", "slots", "published"):
        assert same(getattr(resumed, vectors), getattr(log.states[-1], vectors))
    # Whoever is there now does not matter: clusters are not made again.
    later = TwoKinds(kinds={**KINDS, "e": (5, 5)}, scripts={"e": lost})
    joined = go(later, described, state).states[-1]
    assert same(joined.clusters, log.states[-1].clusters)


def test_the_server_keeps_the_clusters_own_tensors_and_no_more() -> None:
    state: ServerState = go(TwoKinds(), plan({"count": 2, **HEAD}, server_momentum=0.5)).states[-1]
    assert state.model.values_F.numel() == 3
    assert sum(own.values_F.numel() for own in own_states(state)) == 2 * 1
    assert {name: slot.numel() for name, slot in state.slots.items()} == {
        "momentum": 2, "0/momentum": 1, "1/momentum": 1,
    }  # fmt: skip


def test_the_first_state_has_no_clusters() -> None:
    described = plan({"count": 2})
    assert described.cluster_models(start(described)) is None
