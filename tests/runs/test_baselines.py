"""The centralised and local baselines: the same data, the same number of steps, nobody else's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tests.experiments import tiny_experiment
from tests.records import record
from torch import nn

import fleetseg
from fleetseg import rng
from fleetseg.api import run_local
from fleetseg.clients import open_fleet_data
from fleetseg.data.styles import STYLES
from fleetseg.errors import ConfigError
from fleetseg.federation.fleet_facts import facts_of_fleet
from fleetseg.federation.records import RoundRecord
from fleetseg.runs.baselines import at_equal_images, centralised, federated_images, local_only
from fleetseg.runs.evaluation_sets import open_test_sets
from fleetseg.runs.protocols import protocol_of
from fleetseg.runs.run import run_experiment


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


def test_centralised_sees_as_many_images_as_the_fleet(cache: Path) -> None:
    experiment = tiny_experiment(cache)
    fleet_data = open_fleet_data(experiment)
    alone, pooled = centralised(experiment, fleet_data)
    (client,) = pooled.clients.values()
    assert len(client.train) == sum(len(c.train) for c in fleet_data.clients.values())
    # 3 images of each of five vehicles, three rounds; the pool of 15 has 7 batches of two or three.
    assert federated_images(experiment, fleet_data) == 45
    assert alone.training.local_steps == 7
    assert alone.training.optimiser_state == "kept"
    assert alone.engine.threads == experiment.engine.threads


def test_centralised_may_have_another_budget(cache: Path) -> None:
    experiment = tiny_experiment(cache)
    twice = experiment.model_copy(
        update={"baseline": experiment.baseline.model_copy(update={"images_share": 2.0})}
    )
    fleet_data = open_fleet_data(experiment)
    steps = [centralised(e, fleet_data)[0].training.local_steps for e in (experiment, twice)]
    assert steps[1] == 2 * steps[0]


def test_habits_count_where_images_are_counted(cache: Path) -> None:
    habits = {"doubled": True, "drop_last": True}
    experiment = tiny_experiment(cache, training={"batch_size": 4, "habits": habits})
    fleet_data = open_fleet_data(experiment)
    # Of 6 samples of each of five vehicles 4 are used, three rounds; the pool of 30 has 7 of 4.
    assert federated_images(experiment, fleet_data) == 60
    assert centralised(experiment, fleet_data)[0].training.local_steps == 5  # 15 / 3


def test_a_step_for_each_phase_counts_where_images_are_counted(cache: Path, tmp_path: Path) -> None:
    """A batch has all of a vehicle's images: two phases are two steps, and so two epochs."""
    phases = [{"learns": "head"}, {"learns": "body"}]
    experiment = tiny_experiment(
        cache, training={"batch_size": 8, "phases": phases}, federation={"rounds": 1}
    )
    federated = fleetseg.run(experiment, out=tmp_path / "federated")
    assert federated_images(experiment, open_fleet_data(experiment)) == 30
    assert sum(r.images_seen for r in federated.records) == 30


def small_net(classes: int) -> nn.Module:
    with rng.torch_default(0, purpose="baselines-test"):
        return nn.Sequential(nn.Conv2d(3, classes, 3, padding=1))


def test_pooled_images_take_on_any_vehicle_s_style_and_lone_ones_none(
    cache: Path, tmp_path: Path
) -> None:
    """The bank of all together is the fleet's; a vehicle alone is told, once, that it has none."""
    federation = {"rounds": 1}
    plain = tiny_experiment(cache, federation=federation)
    style = {"kind": "lab", "probability": 1.0}
    experiment = tiny_experiment(cache, federation=federation, training={"style": style})
    fleet_data = open_fleet_data(experiment)
    alone, pooled = centralised(experiment, fleet_data)
    bank = facts_of_fleet(alone, pooled.enrolled)[STYLES]
    assert (bank == facts_of_fleet(experiment, fleet_data.enrolled)[STYLES]).all()
    runs = {}
    for name, described in (("plain", plain), ("styles", experiment)):
        for baseline in ("centralised", "local"):
            of, data = (
                centralised(described, fleet_data)
                if baseline == "centralised"
                else next(iter(local_only(described, fleet_data)))[1:]
            )
            out, net = tmp_path / f"{name}-{baseline}", small_net(data.space.num_classes)
            runs[name, baseline] = run_experiment(of, data, out, net=net)
    assert runs["plain", "centralised"].model_sha256 != runs["styles", "centralised"].model_sha256
    assert runs["plain", "local"].model_sha256 == runs["styles", "local"].model_sha256
    notes = {key: [n for n in run.notes if "style" in n] for key, run in runs.items()}
    assert [len(notes["styles", baseline]) for baseline in ("local", "centralised")] == [1, 0]


def test_held_out_frames_have_the_norms_of_the_federation_beside_it(
    cache: Path, tmp_path: Path
) -> None:
    """They are clients' own frames to the fleet, and one of the server's sets to a baseline."""
    experiment = tiny_experiment(
        cache,
        data={"evaluation": [], "sources": [{"conditions": ["day"], "frames_per_drive": 6}]},
        partition={"holdout": 0.34, "holdout_gap": 0},
        evaluation={"norms": "batch", "norms_on_clients": "adapted"},
        federation={"rounds": 1},
    )
    protocols = []
    for baseline in ("", "centralised"):
        run = fleetseg.run(experiment, out=tmp_path / f"run-{baseline}", baseline=baseline or None)
        assert run.scores is not None
        assert run.scores.protocol is not None
        protocols.append(run.scores.protocol)
    assert protocols[0].norms == protocols[1].norms
    assert protocols[0].norms.startswith("adapted")
    assert protocols[0].sets == protocols[1].sets


@pytest.mark.parametrize("baseline", ["centralised", "local"])
def test_who_is_left_out_is_not_scored_either(baseline: str, cache: Path, tmp_path: Path) -> None:
    """Its held-out frames are no part of what the federation beside it is scored on."""
    experiment = tiny_experiment(
        cache,
        data={"evaluation": [], "sources": [{"conditions": ["day"], "frames_per_drive": 6}]},
        partition={"holdout": 0.34, "holdout_gap": 0},
        federation={"rounds": 1, "exclude": ["*amber*", "*birch*"]},
    )
    federated = fleetseg.run(experiment, out=tmp_path / "federated").scores
    assert federated is not None
    assert federated.protocol is not None
    fleet_data = open_fleet_data(experiment)
    alone, data = (
        centralised(experiment, fleet_data)
        if baseline == "centralised"
        else next(iter(local_only(experiment, fleet_data)))[1:]
    )
    assert alone.federation.exclude == experiment.federation.exclude
    (held_out,) = data.evaluation
    assert len(held_out.scored) == 6
    protocol = protocol_of(alone, data, [held_out.name], ["day"], 1)
    assert protocol.sets == federated.protocol.sets
    ((opened,), _) = open_test_sets(experiment, experiment.data.size)
    assert len(opened.scored) == 6


def test_centralised_gets_the_images_of_a_run_that_was_cut_short(cache: Path) -> None:
    experiment = tiny_experiment(cache)
    fleet_data = open_fleet_data(experiment)
    equal = at_equal_images(experiment, fleet_data, [record(images_seen=15)])
    assert equal.baseline.images_share == 15 / 45


def test_centralised_run_is_scored_on_the_same_set(cache: Path, tmp_path: Path) -> None:
    experiment = tiny_experiment(cache)
    federated = fleetseg.run(experiment, out=tmp_path / "federated")
    pooled = fleetseg.run(experiment, out=tmp_path / "centralised", baseline="centralised")
    assert pooled.scores.to_dict()["pixels"] == federated.scores.to_dict()["pixels"]
    images = [sum(r.images_seen for r in run.records) for run in (pooled, federated)]
    assert images == [45, 45]
    assert pooled.model_sha256 != federated.model_sha256


def test_centralised_is_scored_on_the_frames_of_each_vehicle_too(
    cache: Path, tmp_path: Path
) -> None:
    """Else nothing says whether the fleet's worst vehicle is badly off by being in a fleet."""
    experiment = tiny_experiment(
        cache,
        data={"evaluation": []},
        partition={"holdout": 0.34},
        evaluation={"on_clients": True},
        federation={"rounds": 1},
    )
    federated = fleetseg.run(experiment, out=tmp_path / "federated").scores
    pooled = fleetseg.run(experiment, out=tmp_path / "pooled", baseline="centralised").scores
    assert federated is not None
    assert pooled is not None
    assert pooled.clients_on == federated.clients_on == "held-out frames"
    pixels = [{name: int(conf_CC.sum()) for name, conf_CC in scores.conf_by_client.items()}
              for scores in (pooled, federated)]  # fmt: skip
    assert pixels[0] == pixels[1]
    assert pooled.overall is not None
    total_CC = sum(pooled.conf_by_client.values())
    assert (total_CC == pooled.overall.conf_CC).all()


def test_centralised_resumes_with_its_moments(cache: Path, tmp_path: Path) -> None:
    """The optimiser's state is the client's own file: a resumed run must have it back."""
    experiment = tiny_experiment(cache)
    whole = fleetseg.run(experiment, out=tmp_path / "whole", baseline="centralised")

    class Enough(Exception):
        pass

    def stop(record: RoundRecord) -> None:
        if record.round == 2:
            raise Enough

    from fleetseg.federation.rounds import Watcher

    out = tmp_path / "parted"
    with pytest.raises(Enough):
        fleetseg.run(
            experiment, out=out, baseline="centralised", watcher=Watcher(round_closed=stop)
        )
    resumed = fleetseg.run(experiment, out=out, baseline="centralised", resume=True)
    assert resumed.model_sha256 == whole.model_sha256


def test_local_gives_each_vehicle_its_own_model(cache: Path, tmp_path: Path) -> None:
    experiment = tiny_experiment(cache)
    fleet_data = open_fleet_data(experiment)
    assert [name for name, _, _ in local_only(experiment, fleet_data)] == list(fleet_data.clients)
    runs = run_local(experiment, out=tmp_path / "local")
    assert set(runs) == set(fleet_data.clients)
    assert len({run.model_sha256 for run in runs.values()}) == len(runs)
    assert all(run.miou is not None for run in runs.values())


def without_labels(cache: Path, share: float) -> fleetseg.Experiment:
    return tiny_experiment(
        cache,
        training={"supervision": "self_training"},
        partition={"unlabelled": {"share": share}},
        model={"start": "somewhere"},
    )


def test_one_place_teaches_itself_where_all_vehicles_do(cache: Path) -> None:
    experiment = without_labels(cache, 1.0)
    alone, pooled = centralised(experiment, open_fleet_data(experiment))
    (client,) = pooled.clients.values()
    assert alone.training.supervision == "self_training"
    assert (client.enrolment.num_images, client.enrolment.num_pixels) == (15, 0)
    assert set(np.unique(client.train[0][1])) == {255}


def test_one_place_cannot_learn_in_two_ways(cache: Path) -> None:
    experiment = without_labels(cache, 0.4)
    with pytest.raises(ConfigError, match="some vehicles have labels"):
        centralised(experiment, open_fleet_data(experiment))
