"""Two stages in one run: the second goes on from the first, and both go on after a kill."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.experiments import tiny_experiment
from torch import nn

import fleetseg
from fleetseg import rng
from fleetseg.config import Experiment
from fleetseg.errors import ConfigError, LeakError
from fleetseg.experiment_file import make_experiment_from_text, to_toml
from fleetseg.federation.records import RoundRecord
from fleetseg.federation.rounds import Watcher
from fleetseg.fleet.protocol import experiment_for_vehicles
from fleetseg.models.build import wrap
from fleetseg.runs.pretraining import pretraining_of

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
    with pytest.raises(LeakError, match=f"of {told}, too"):
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
