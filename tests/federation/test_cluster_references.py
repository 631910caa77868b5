"""Teachers of clusters: those that runs of their own would have, beside what clusters share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.federation.clustered_fleet import HEAD, KINDS, LAYOUT, LEFT, RIGHT, TwoKinds, start
from tests.federation.scripted_fleet import MemoryLog, Reply

from fleetseg.config import Experiment, FederationConfig, SelfTrainingConfig, TrainingConfig
from fleetseg.federation.checkpoint import ServerState, load_checkpoint, save_checkpoint
from fleetseg.federation.cluster_models import ClusterModels
from fleetseg.federation.cluster_parts import with_clusters
from fleetseg.federation.cluster_references import cluster_references
from fleetseg.federation.cluster_state import of_cluster
from fleetseg.federation.messages import Broadcast
from fleetseg.federation.plan import Plan
from fleetseg.federation.references import FIRST, TEACHER, References, advance_references
from fleetseg.federation.rounds import Watcher, run
from fleetseg.federation.sharing import Exchange

TEACHERS: list[dict[str, Any]] = [
    {"teacher": "round", "every": 3},
    {"teacher": "ema", "ema": 0.5},
    {"teacher": "swa", "every": 2, "swa_start": 0.4},
]
each_teacher = pytest.mark.parametrize("teacher", TEACHERS, ids=str)


class Taught(TwoKinds):
    """Vehicles train from the first values of what they are sent: teachers come behind them."""

    def half_way(self, client: str, broadcast: Broadcast) -> list[Reply]:
        return [self.towards(client, broadcast, broadcast.state.values_F[: LAYOUT.num_floats])]

    def sent_to(self, client: str) -> list[torch.Tensor]:
        """Return what this one was sent, round after round: the model, the first, the teacher."""
        sent = [asks[client].state.values_F for asks in self.asks if client in asks]
        return [values_F.view(3, LAYOUT.num_floats) for values_F in sent]


def plan(teacher: Mapping[str, Any], clusters: Mapping[str, Any] | None) -> Plan:
    fields: dict[str, Any] = {"rounds": 6}
    if clusters is not None:
        fields |= {"clustered_by": "class mix", "cluster_models": clusters}
    federation = FederationConfig.model_validate(fields)
    training = TrainingConfig(self_training=SelfTrainingConfig.model_validate(teacher))
    exchange = Exchange.of(LAYOUT, references=(FIRST, TEACHER))
    experiment = Experiment(federation=federation, training=training)
    return Plan(experiment, with_clusters(exchange, federation))


def go(fleet: Taught, plan_: Plan, state: ServerState | None = None) -> MemoryLog:
    log = MemoryLog()
    run(plan_, fleet, state or start(plan_), log, Watcher())
    return log


def same(one: References, other: References) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[n], other[n]) for n in one)


@each_teacher
def test_clusters_with_models_of_their_own_have_the_teachers_of_runs_of_their_own(
    teacher: dict[str, Any],
) -> None:
    both = Taught()
    state = go(both, plan(teacher, {"count": 2})).states[-1]
    for kind, own in ((RIGHT, "a"), (LEFT, "b")):
        alone = Taught(kinds={c: k for c, k in KINDS.items() if k == kind})
        go(alone, plan(teacher, None))
        assert len(both.sent_to(own)) == 6
        for there, here in zip(both.sent_to(own), alone.sent_to(own), strict=True):
            assert torch.equal(there, here)
    right, left = (of_cluster(state.references, k)[TEACHER] for k in (0, 1))
    assert not torch.equal(right, left)


@each_teacher
@pytest.mark.parametrize("tensors", [{}, HEAD], ids=["all", "head"])
def test_a_teacher_is_of_the_models_that_its_vehicles_were_sent(
    teacher: dict[str, Any], tensors: dict[str, Any]
) -> None:
    fleet, plan_ = Taught(), plan(teacher, {"count": 2, **tensors})
    go(fleet, plan_)
    settings = plan_.experiment.training.self_training
    for client in KINDS:
        held: References = {}
        for round_, (model_F, first_F, teacher_F) in enumerate(fleet.sent_to(client), 1):
            held = advance_references(held, (FIRST, TEACHER), model_F, round_, settings, 6)
            assert torch.equal(teacher_F, held[TEACHER])
            assert first_F.tolist() == [0, 0, 0]
    assert torch.equal(fleet.sent_to("a")[-1], fleet.sent_to("c")[-1])
    assert not torch.equal(fleet.sent_to("a")[-1][2], fleet.sent_to("b")[-1][2])


def test_of_a_head_of_their_own_the_body_s_teacher_is_the_fleet_s() -> None:
    fleet = Taught()
    go(fleet, plan(TEACHERS[1], {"count": 2, **HEAD}))
    right, left = fleet.sent_to("a")[-1][2], fleet.sent_to("b")[-1][2]
    assert torch.equal(right[:2], left[:2])
    assert right[2] > 0 > left[2]


@each_teacher
def test_a_resumed_run_has_the_same_teachers(teacher: dict[str, Any], tmp_path: Path) -> None:
    plan_ = plan(teacher, {"count": 2, **HEAD})
    whole, again = Taught(), Taught()
    log = go(whole, plan_)
    path = save_checkpoint(tmp_path, log.states[2], {}, experiment="e", layout="l")
    state, _ = load_checkpoint(path, experiment="e", layout="l")
    resumed = go(again, plan_, state).states[-1]
    assert same(resumed.references, log.states[-1].references)
    for client in KINDS:
        for there, here in zip(whole.sent_to(client)[3:], again.sent_to(client), strict=True):
            assert torch.equal(there, here)


def test_without_teachers_nothing_comes_beside_a_cluster_s_model() -> None:
    plan_ = plan({}, {"count": 2})
    bare = replace(plan_, exchange=replace(plan_.exchange, references=()))
    state = go(Taught(), bare).states[-1]
    assert state.references == {}
    assert cluster_references(state, bare.exchange, 0) == {}


def test_models_that_are_rolled_back() -> None:
    """To earlier ones of the clusters, or to the first, which is all clusters'."""
    plan_ = plan({}, {"count": 2, **HEAD})
    states = go(Taught(), plan_).states
    now, before = (plan_.cluster_models(state) for state in (states[-1], states[1]))
    assert now is not None
    assert before is not None
    back = now.rolled_back(before.headline, before.own)
    for k in range(2):
        assert torch.equal(back.model(k).values_F, before.model(k).values_F)
        assert not torch.equal(back.model(k).values_F, now.model(k).values_F)
    first = now.rolled_back(start(plan_).model, ())
    assert isinstance(first, ClusterModels)
    assert [first.model(k).values_F.tolist() for k in range(2)] == [[0, 0, 0]] * 2
