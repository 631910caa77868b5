"""Tuning: trials of equal images on held-out drives; the best is written, no scored set opened."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from fleetseg.errors import CheckpointError, ConfigError
from fleetseg.experiment_file import load_experiment, make_experiment, read_fields
from fleetseg.runs.report import read_run
from fleetseg.runs.tuning import (
    BASE,
    TABLE,
    TRIALS,
    TUNED,
    Budget,
    Trial,
    Tuned,
    table,
    trials_of,
    tune,
)

TEXT = """
name = "small"
[data]
size = [64, 64]
cache = "cache"
[[data.sources]]
cities = ["amber"]
conditions = ["day"]
frames_per_drive = 4
[[data.evaluation]]
kind = "camvid"
root = "that/is/not/there"
[training]
lr = 0.01
batch_size = 2
[federation]
rounds = 8
[stop]
target_miou = 0.0001
"""


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> Tuned:
    """Two trials of an experiment whose evaluation set cannot be opened by anybody."""
    folder = tmp_path_factory.mktemp("tuning")
    (folder / "small.toml").write_text(TEXT)
    budget = Budget(rates=(0.01,), epochs=(1, 2), rounds=2)
    return tune(folder / "small.toml", ["seed=3"], budget=budget, out=folder / "trials")


def test_every_trial_is_over_and_saw_as_many_images(tuned: Tuned) -> None:
    assert tuned.sweep.is_whole
    assert {(one.local_epochs, one.rounds) for one in tuned.trials} == {(1, 2), (2, 1)}
    assert len({one.images for one in tuned.trials}) == 1
    assert list(tuned.trials) == sorted(tuned.trials, key=lambda one: -one.miou)


def test_scores_are_of_held_out_frames(tuned: Tuned) -> None:
    run = read_run(tuned.folder / tuned.sweep.runs[0].planned.name)
    assert run.experiment.data.evaluation == ()
    assert run.end is not None
    assert run.end.scored is not None
    assert run.end.scored.clients_on == "held-out frames"
    assert run.end.reason == "rounds"  # and not the target of the experiment's own score


def test_the_best_is_written_with_the_rest_of_the_experiment_as_it_was(tuned: Tuned) -> None:
    assert tuned.file == tuned.folder / TUNED
    chosen, best = load_experiment(tuned.file), tuned.trials[0]
    assert (chosen.training.lr, chosen.training.local_epochs) == (best.lr, best.local_epochs)
    assert chosen.federation.rounds == 8 // best.local_epochs
    assert (chosen.name, chosen.seed, chosen.stop.target_miou) == ("small", 3, 0.0001)
    assert chosen.partition.holdout == 0
    assert chosen.data.evaluation[0].root == str(tuned.folder.parent / "that/is/not/there")
    assert f"| {best.miou:.3f} |" in (tuned.folder / TABLE).read_text().splitlines()[4]


def test_what_is_missing_is_run_again_and_gives_the_same(tuned: Tuned) -> None:
    first = (tuned.folder / TUNED).read_text()
    shutil.rmtree(tuned.folder / tuned.sweep.runs[1].planned.name)
    again = tune(None, out=tuned.folder, resume=True)
    assert [run.was_there for run in again.sweep.runs] == [True, False]
    assert [(one.name, one.miou) for one in again.trials] == [
        (one.name, one.miou) for one in tuned.trials
    ]
    assert (tuned.folder / TUNED).read_text() == first


def test_a_folder_with_trials_is_not_begun_anew(tuned: Tuned, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="already holds trials"):
        tune(tuned.folder / BASE, out=tuned.folder)
    with pytest.raises(CheckpointError, match=f"no trials to resume.*{TRIALS}"):
        tune(None, out=tmp_path, resume=True)


def test_by_default_three_rates_and_two_numbers_of_epochs(tmp_path: Path) -> None:
    (tmp_path / "x.toml").write_text(TEXT)
    fields = read_fields(tmp_path / "x.toml")
    trials = trials_of(make_experiment(fields), fields, Budget())
    tried = [(run["training"]["lr"], run["training"]["local_epochs"]) for run in trials["run"]]
    assert tried == [(lr, n) for lr in (0.0033, 0.01, 0.03) for n in (1, 2)]
    assert [run["federation"]["rounds"] for run in trials["run"]] == [4, 2] * 3
    assert trials["base"]["data"]["evaluation"] == []


def test_steps_take_the_place_of_epochs() -> None:
    fields = {"training": {"local_steps": 5}}
    trials = trials_of(make_experiment(fields), fields, Budget())
    assert len(trials["run"]) == 3


def test_one_setting_is_no_choice() -> None:
    with pytest.raises(ConfigError, match="nothing to choose"):
        trials_of(make_experiment({}), {}, Budget(rates=(0.1,), epochs=(1,)))


def test_the_table_is_in_the_order_of_the_trials() -> None:
    one = Trial("a", 0.01, 2, 3, 0.25, None, 1200, 61.4)
    assert table([one]).splitlines()[-1] == "| 0.01 | 2 | 3 | 1,200 | 0.250 | – | 61 |"
