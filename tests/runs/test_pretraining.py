"""Two stages in one run: the second goes on from the first, and both go on after a kill."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from tests.experiments import tiny_experiment
from torch import nn

import fleetseg
from fleetseg import rng
from fleetseg.clients import FleetData, open_fleet_data
from fleetseg.config import Experiment
from fleetseg.data.styles import STYLES, Restyling
from fleetseg.data.styles.spectrum import amplitudes
from fleetseg.errors import ConfigError, LeakError
from fleetseg.experiment_file import make_experiment_from_text, to_toml
from fleetseg.federation.checkpoint import list_checkpoints
from fleetseg.federation.fleet_facts import facts_of_fleet
from fleetseg.federation.records import RoundRecord
from fleetseg.federation.rounds import Watcher
from fleetseg.fleet.protocol import experiment_for_vehicles
from fleetseg.learning.inputs import Facts
from fleetseg.models.build import wrap
from fleetseg.runs.baselines import centralised
from fleetseg.runs.pretraining import pretraining_of, with_styles

ROOT = Path(__file__).resolve().parents[2]
ONE_CITY = {"cities": ["amber"], "conditions": ["day"], "frames_per_drive": 3}
OTHER_CITY = {"cities": ["birch"], "conditions": ["rain"], "frames_per_drive": 4}


def small_net() -> nn.Module:
    with rng.torch_default(0, purpose="pretraining-test"):
        net = nn.Sequential(
            nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 11, 1)
        )
    return wrap(net, 11, head_prefixes=["3."])


def experiment(cache: Path, **sections: dict[str, Any]) -> Experiment:
    fields: dict[str, dict[str, Any]] = {
        "data": {"sources": [ONE_CITY], "evaluation": [{**ONE_CITY, "split": "val"}]},
        "partition": {"piece": 1, "unlabelled": {"share": 1.0}},
        "training": {"supervision": "self_training", "lr": 0.02},
        "federation": {"rounds": 2},
        "pretrain": {"sources": [OTHER_CITY], "rounds": 2, "steps": 2, "lr": 0.05},
        "safety": {"max_loss": 1.0, "collapse": 0.0},
    }
    for name, section in sections.items():
        fields[name] = {**fields.get(name, {}), **section}
    return tiny_experiment(cache, **fields)


def go_on(described: Experiment, out: Path) -> fleetseg.Run:
    return fleetseg.run(described, net=small_net(), out=out, resume=True)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def whole(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> fleetseg.Run:
    return go_on(experiment(cache), tmp_path_factory.mktemp("whole") / "run")


def test_the_fleet_goes_on_from_what_the_server_has_trained(whole: fleetseg.Run) -> None:
    first = fleetseg.read_run(whole.folder / "pretrain")
    assert first.end is not None
    assert first.end.reason == "rounds"
    assert [record.steps for record in first.rounds] == [2, 2]
    assert first.experiment.training.lr == 0.05
    assert first.experiment.training.supervision == "labels"
    fresh = small_net().state_dict()["net.0.weight"]
    start = fleetseg.load_model(whole.folder / "pretrain", small_net()).state_dict()
    assert not start["net.0.weight"].equal(fresh)
    assert first.end.model_sha256 != whole.model_sha256


def test_it_is_scored_on_what_the_fleet_is_scored_on(whole: fleetseg.Run) -> None:
    """A row of the table for free: the model that has never seen the vehicles' roads."""
    stages = [fleetseg.read_run(folder) for folder in (whole.folder / "pretrain", whole.folder)]
    protocols = [stage.end.scored.protocol for stage in stages if stage.end and stage.end.scored]
    assert len(protocols) == 2
    assert protocols[0] is not None
    assert protocols[1] is not None
    assert protocols[0].sets == protocols[1].sets
    assert protocols[0].seen == ()


def test_a_kill_in_the_first_stage_costs_nothing(
    whole: fleetseg.Run, cache: Path, tmp_path: Path
) -> None:
    (tmp_path / "experiment.toml").write_text(to_toml(experiment(cache)))
    script = f"""
import os, signal, sys
sys.path.insert(0, {str(ROOT)!r})
import fleetseg
from fleetseg.federation.rounds import Watcher
from tests.runs.test_pretraining import small_net

def status(text):
    if text.startswith("pre-training: 1 of 2"):
        os.kill(os.getpid(), signal.SIGKILL)

fleetseg.run({str(tmp_path / "experiment.toml")!r}, net=small_net(),
             out={str(tmp_path / "run")!r}, watcher=Watcher(status=status))
"""
    done = subprocess.run([sys.executable, "-c", script], check=False, capture_output=True)
    assert done.returncode == -9, done.stderr.decode()
    assert not (tmp_path / "run" / "experiment.toml").exists()
    assert go_on(experiment(cache), tmp_path / "run").model_sha256 == whole.model_sha256


def test_a_crash_in_the_second_stage_does_not_begin_the_first_anew(
    whole: fleetseg.Run, cache: Path, tmp_path: Path
) -> None:
    def crash(record: RoundRecord) -> None:
        raise RuntimeError("power failure")

    out, told = tmp_path / "run", list[str]()
    with pytest.raises(RuntimeError, match="power failure"):
        fleetseg.run(
            experiment(cache), net=small_net(), out=out, watcher=Watcher(round_closed=crash)
        )
    resumed = fleetseg.run(
        experiment(cache), net=small_net(), out=out, resume=True, watcher=Watcher(told.append)
    )
    assert resumed.model_sha256 == whole.model_sha256
    assert not any("pre-training" in text for text in told)


def test_its_progress_is_told(cache: Path, tmp_path: Path) -> None:
    told: list[str] = []
    fleetseg.run(
        experiment(cache), net=small_net(), out=tmp_path / "run", watcher=Watcher(told.append)
    )
    lines = [text for text in told if text.startswith("pre-training:")]
    assert [line.partition(",")[0] for line in lines] == [
        "pre-training: 1 of 2",
        "pre-training: 2 of 2",
    ]
    assert all("loss" in line and "mIoU" in line for line in lines)


@pytest.mark.parametrize(
    ("source", "told"),
    [(ONE_CITY, "an unlabelled vehicle"), ({**ONE_CITY, "split": "val"}, "what is scored")],
)
def test_labels_that_nobody_may_see_are_not_learnt_by_the_server_either(
    source: dict[str, Any], told: str, cache: Path, tmp_path: Path
) -> None:
    described = experiment(cache, pretrain={"sources": [OTHER_CITY, source]})
    with pytest.raises(LeakError, match=f"also belong to {told}"):
        fleetseg.run(described, net=small_net(), out=tmp_path / "run")


def test_random_weights_have_nothing_to_teach(cache: Path, tmp_path: Path) -> None:
    described = experiment(cache, pretrain={"sources": []})
    with pytest.raises(ConfigError, match="begins with random weights"):
        fleetseg.run(described, out=tmp_path / "run")


def test_a_fleet_whose_vehicles_have_labels_needs_no_start(cache: Path, tmp_path: Path) -> None:
    """The oracle of an experiment is its own file with labels."""
    described = experiment(
        cache,
        pretrain={"sources": []},
        partition={"piece": 1, "unlabelled": {}},
        federation={"rounds": 1, "cohort": 1},
    )
    assert fleetseg.run(described, out=tmp_path / "run").reason == "rounds"


def test_vehicles_are_told_nothing_of_it(cache: Path) -> None:
    told = experiment_for_vehicles(experiment(cache))
    assert "birch" not in told
    assert make_experiment_from_text(told, where="hello").partition.unlabelled.share == 1.0


def test_the_first_stage_is_an_experiment_that_reads_back(cache: Path) -> None:
    alone = pretraining_of(experiment(cache))
    assert make_experiment_from_text(to_toml(alone), where="test") == alone


# In the vehicles' styles


STYLED: dict[str, dict[str, Any]] = {
    "pretrain": {"style_probability": 1.0},
    "training": {"style": {"kind": "fda", "probability": 0.0}},
}


@pytest.fixture(scope="module")
def styled(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> fleetseg.Run:
    return go_on(experiment(cache, **STYLED), tmp_path_factory.mktemp("styled") / "run")


def first_facts(run: Path) -> Facts:
    """Return what the first stage's newest checkpoint holds of the fleet."""
    newest = list_checkpoints(run / "pretrain" / "checkpoints")[0]
    tensors = safetensors.numpy.load_file(newest)
    return {k.removeprefix("fact/"): v for k, v in tensors.items() if k.startswith("fact/")}


def test_the_server_s_images_take_on_the_vehicles_styles_and_no_other(
    styled: fleetseg.Run, whole: fleetseg.Run, cache: Path
) -> None:
    described = experiment(cache, **STYLED)
    fleet = open_fleet_data(described)
    bank = first_facts(styled.folder)[STYLES]
    assert bank.shape == (len(fleet.enrolled), 28)
    assert (bank == facts_of_fleet(described, fleet.enrolled)[STYLES]).all()
    plain, restyled = (fleetseg.read_run(run.folder / "pretrain") for run in (whole, styled))
    assert [r.steps for r in restyled.rounds] == [r.steps for r in plain.rounds]
    assert [r.loss for r in restyled.rounds] != [r.loss for r in plain.rounds]
    assert not styled.notes or not any("no effect" in note for note in styled.notes)


def test_what_each_image_is_given_is_a_vehicle_s_style(cache: Path) -> None:
    """Also where a vehicle has the name that the server goes by."""
    described = experiment(cache, **STYLED)
    fleet = open_fleet_data(described)
    first, *others = fleet.enrolled.values()
    enrolled = {"server": replace(first, client_id="server"), **{e.client_id: e for e in others}}
    own = with_styles(fleet_of_one(fleet), enrolled)
    ((name, client),) = own.clients.items()
    assert name == client.id == "server'"
    alone = pretraining_of(described)
    bank = facts_of_fleet(alone, own.enrolled)[STYLES]
    restyling = Restyling.of(alone.training.style, bank, alone.data.size, client.id)
    assert restyling.probability == 1
    assert len(restyling.styles) == len(enrolled)
    image_HWC, _ = client.train[0]
    given_HWC = restyling.restyled(image_HWC, np.array([0.5, 0.0, 0.0, 0.0]))
    target = restyling.styles[0][0]
    near = np.abs(amplitudes(given_HWC, (1, 1)) - target)
    assert near.max() < 2  # of levels: clipped and rounded
    assert np.abs(amplitudes(image_HWC, (1, 1)) - target).max() > 2 * near.max()


def fleet_of_one(fleet: FleetData) -> FleetData:
    name, client = next(iter(fleet.clients.items()))
    return replace(fleet, clients={name: client})


def test_a_crash_in_the_styled_stage_goes_on_to_the_same(
    styled: fleetseg.Run, cache: Path, tmp_path: Path
) -> None:
    def crash(text: str) -> None:
        if text.startswith("pre-training: 1 of 2"):
            raise RuntimeError("power failure")

    described, out = experiment(cache, **STYLED), tmp_path / "run"
    with pytest.raises(RuntimeError, match="power failure"):
        fleetseg.run(described, net=small_net(), out=out, watcher=Watcher(status=crash))
    assert go_on(described, out).model_sha256 == styled.model_sha256


def test_without_styles_the_first_stage_measures_none(whole: fleetseg.Run, cache: Path) -> None:
    assert first_facts(whole.folder) == {}
    fleet_only = experiment(cache, training={"style": {"kind": "lab"}})
    assert pretraining_of(fleet_only).training.style.kind == "none"


def test_one_place_has_all_vehicles_styles(cache: Path) -> None:
    described = experiment(cache, **STYLED)
    fleet = open_fleet_data(described)
    alone, pooled = centralised(described, fleet)
    own = with_styles(fleet_of_one(fleet), pooled.enrolled)
    bank = facts_of_fleet(pretraining_of(alone), own.enrolled)[STYLES]
    assert (bank == facts_of_fleet(described, fleet.enrolled)[STYLES]).all()
