"""What teaches itself is watched over: a collapse ends the run, and is never published."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.experiments import tiny_experiment
from tests.federation.clustered_fleet import TwoKinds
from tests.federation.clustered_fleet import go as clustered_run
from tests.federation.clustered_fleet import plan as clustered_plan
from torch import nn

import fleetseg
from fleetseg import rng
from fleetseg.config import Experiment, SafetyConfig
from fleetseg.data.labels import CAMVID_11
from fleetseg.evaluation.scored import Scored
from fleetseg.federation.cluster_state import own_states
from fleetseg.federation.rounds import Watcher
from fleetseg.federation.tensors import ModelState
from fleetseg.models.build import wrap
from fleetseg.runs.safety import UNGUARDED, Guard, class_entropy

C = CAMVID_11.num_classes
DRIVE = {"cities": ["amber"], "conditions": ["day"], "frames_per_drive": 3}


def scored(conf_CC: np.ndarray) -> Scored:
    return Scored(CAMVID_11, {"amber": conf_CC.astype(np.int64)})


def state(value: float) -> ModelState:
    return ModelState(torch.tensor([value]), torch.zeros(0, dtype=torch.int64))


EVEN = np.eye(C) * 100
WORSE = np.eye(C) * 100 + np.roll(np.eye(C), 1, axis=1) * 10
ONE_CLASS = np.zeros((C, C)) + 100 * np.eye(1, C, dtype=np.int64)


def guard(tmp_path: Path, **settings: float) -> Guard:
    return Guard(SafetyConfig(**settings), scored(EVEN), state(0), tmp_path / "safe", "layout")


def test_entropy_is_of_what_is_predicted_not_of_what_is_true() -> None:
    assert class_entropy({"amber": EVEN.astype(np.int64)}) == pytest.approx(np.log(C))
    assert class_entropy({"amber": ONE_CLASS.astype(np.int64)}) == 0
    assert class_entropy({"amber": ONE_CLASS.T.astype(np.int64)}) == pytest.approx(np.log(C))


def test_a_model_may_lose_so_much_and_no_more(tmp_path: Path) -> None:
    lost = 1 - (scored(WORSE).miou or 0)
    assert guard(tmp_path, max_loss=lost + 1e-9).is_safe(scored(WORSE))
    assert not guard(tmp_path, max_loss=lost - 1e-9).is_safe(scored(WORSE))


def test_predictions_of_one_class_are_a_collapse(tmp_path: Path) -> None:
    strict = guard(tmp_path, max_loss=1.0, collapse=0.5)
    assert strict.has_collapsed(scored(ONE_CLASS))
    assert not strict.is_safe(scored(ONE_CLASS))
    assert not strict.has_collapsed(scored(WORSE))
    assert not guard(tmp_path, collapse=0.0).has_collapsed(scored(ONE_CLASS))


def test_the_newest_model_that_may_be_published_is_kept(tmp_path: Path) -> None:
    kept = guard(tmp_path, max_loss=0.01)
    assert kept.kept(9)[0] == 0
    for round_, conf in ((1, EVEN), (2, EVEN), (3, WORSE)):
        kept.keep(state(round_), round_, scored(conf))
    round_, model, _ = kept.kept(3)
    assert (round_, model.values_F.item()) == (2, 2)
    assert kept.kept(1)[0] == 1  # a run that was resumed further back
    assert kept.kept(9)[0] == 1  # and knows no other any more


def small_net() -> nn.Module:
    with rng.torch_default(0, purpose="safety-test"):
        net = nn.Sequential(
            nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 11, 1)
        )
    return wrap(net, 11, head_prefixes=["3."])


def experiment(cache: Path, **sections: dict[str, Any]) -> Experiment:
    """A network that knows nothing teaches itself: soon all is of one class."""
    fields: dict[str, dict[str, Any]] = {
        "data": {"sources": [DRIVE], "evaluation": [{**DRIVE, "split": "val"}]},
        "partition": {"unlabelled": {"share": 1.0}},
        "training": {"supervision": "self_training", "lr": 0.5, "local_epochs": 4},
        "federation": {"rounds": 4},
    }
    return tiny_experiment(cache, **{**fields, **sections})


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


def test_a_collapse_ends_the_run_and_the_first_model_is_published(
    cache: Path, tmp_path: Path
) -> None:
    run = fleetseg.run(experiment(cache), net=small_net(), out=tmp_path / "run")
    assert run.reason == "collapsed"
    assert len(run.records) < 4
    assert any("that training started from is published" in note for note in run.notes)
    wanted = small_net().state_dict()
    assert all(
        torch.equal(wanted[k], v) for k, v in run.model_with(small_net()).state_dict().items()
    )
    assert run.scores is not None
    assert run.records[-1].scored is not None
    assert run.miou != run.records[-1].miou
    again = fleetseg.run(experiment(cache), net=small_net(), out=tmp_path / "run", resume=True)
    assert (again.reason, again.model_sha256) == (run.reason, run.model_sha256)


def test_so_are_the_clusters_of_the_first_model(cache: Path, tmp_path: Path) -> None:
    """Not those of the round that is not published."""
    cities = [{**DRIVE, "cities": ["amber", "birch"]}]
    described = experiment(
        cache,
        data={"sources": cities, "evaluation": [{**DRIVE, "split": "val"}]},
        federation={"rounds": 4, "clustered_by": "image_gaussian", "cluster_models": {"count": 2}},
    )
    run = fleetseg.run(described, net=small_net(), out=tmp_path / "run")
    assert run.reason == "collapsed"
    wanted = small_net().state_dict()
    for k in range(2):
        own = fleetseg.load_model(tmp_path / "run", small_net(), cluster=k).state_dict()
        assert all(torch.equal(wanted[key], value) for key, value in own.items())


def test_with_a_model_that_may_be_published_come_its_clusters(tmp_path: Path) -> None:
    plan = clustered_plan({"count": 2})
    states = clustered_run(TwoKinds(), plan).states
    guarded = guard(tmp_path, max_loss=0.01)
    for round_, conf in ((1, EVEN), (2, WORSE)):
        clusters = plan.cluster_models(states[round_ - 1])
        guarded.keep(plan.published(states[round_ - 1]), round_, scored(conf), clusters)
    round_, model, own = guarded.kept(2)
    assert round_ == 1
    assert torch.equal(model.values_F, states[0].model.values_F)
    assert [o.values_F.tolist() for o in own] == [
        o.values_F.tolist() for o in own_states(states[0])
    ]


def test_without_the_guard_it_would_be(cache: Path, tmp_path: Path) -> None:
    off = {"max_loss": 1.0, "collapse": 0.0}
    run = fleetseg.run(experiment(cache, safety=off), net=small_net(), out=tmp_path / "run")
    assert run.reason == "rounds"
    assert not any("is published" in note for note in run.notes)


def test_a_model_whose_scores_are_not_known_is_not_published(cache: Path, tmp_path: Path) -> None:
    def interrupt(record: object) -> None:
        raise KeyboardInterrupt

    described = experiment(cache, evaluation={"every": 0}, safety={"max_loss": 1.0})
    watcher = Watcher(round_closed=interrupt)
    run = fleetseg.run(described, net=small_net(), out=tmp_path / "run", watcher=watcher)
    assert run.reason == "interrupted"
    assert any("the latter has not been scored" in note for note in run.notes)


def test_where_nothing_can_watch_that_is_told(cache: Path, tmp_path: Path) -> None:
    described = experiment(cache, data={"sources": [DRIVE], "evaluation": []})
    run = fleetseg.run(described, net=small_net(), out=tmp_path / "run")
    assert UNGUARDED in run.notes


def test_fleets_with_labels_are_let_be(cache: Path, tmp_path: Path) -> None:
    described = experiment(cache, partition={})
    run = fleetseg.run(described, net=small_net(), out=tmp_path / "run")
    assert run.reason == "rounds"
    assert not (tmp_path / "run" / "safe").exists()
