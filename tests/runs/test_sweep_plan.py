"""The runs of a sweep: what wins over what, all errors at once, and whose a folder is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.run_folders import run_folder

from fleetseg.clients import open_fleet_data
from fleetseg.errors import CheckpointError, ConfigError
from fleetseg.experiment_file import make_experiment
from fleetseg.methods import METHODS
from fleetseg.runs.baselines import centralised
from fleetseg.runs.sweep_file import Setting, Sweep
from fleetseg.runs.sweep_plan import PlannedRun, plan


def planned(*settings: Setting, seeds: tuple[int, ...] = (0,), **base: Any) -> list[PlannedRun]:
    return list(plan(Sweep("many", base, seeds, settings)))


def test_every_setting_with_the_first_seed_comes_before_the_next_seed() -> None:
    runs = planned(Setting("a", {}), Setting("b", {"training": {"lr": 0.5}}), seeds=(4, 2))
    assert [run.name for run in runs] == ["a_seed4", "b_seed4", "a_seed2", "b_seed2"]
    assert [run.experiment.seed for run in runs] == [4, 4, 2, 2]
    assert [run.experiment.name for run in runs] == ["a", "b", "a", "b"]
    assert {run.experiment.engine.kind for run in runs} == {"inprocess"}


def test_a_setting_s_method_wins_over_the_base_and_its_own_options_over_the_method() -> None:
    """A base that spells out an option would else take it out of every method, unnoticed."""
    base = {"training": {"objective": "plain", "lr": 0.25}, "federation": {"server_momentum": 0.5}}
    plain, pulled, own = planned(
        Setting("a", {}),
        Setting("b", {"method": "fedprox"}),
        Setting("c", {"method": "fedavgm", "federation": {"server_momentum": 0.25}}),
        **base,
    )
    assert plain.experiment.training.objective == "plain"
    assert (pulled.experiment.training.objective, pulled.experiment.training.lr) == ("prox", 0.25)
    assert own.experiment.federation.server_momentum == 0.25


SOURCES = {"sources": [{"cities": ["coral"], "frames_per_drive": 2}]}


@pytest.mark.parametrize("method", METHODS)
def test_every_method_is_a_setting_of_the_default_experiment(method: str) -> None:
    staged = "pretrain" in METHODS[method].fields  # the sources of a first stage are no preset's
    fields = {"method": method, **({"pretrain": SOURCES} if staged else {})}
    (run,) = planned(Setting("a", fields))
    alone = make_experiment(fields)
    for section in METHODS[method].fields:
        assert getattr(run.experiment, section) == getattr(alone, section)


def test_all_errors_come_at_once_each_with_its_settings(tmp_path: Path) -> None:
    missing = {"data": {"sources": [{"kind": "camvid", "root": str(tmp_path / "none")}]}}
    with pytest.raises(ConfigError) as refused:
        planned(
            Setting("good", {}),
            Setting("typo", {"training": {"lrr": 0.5}}),
            Setting("name", {"federation": {"sampler": "unifrom"}}),
            Setting("method", {"method": "fedproks"}),
            Setting("network", {"model": {"name": "fast_snn"}}),
            Setting("clash", {"method": "scaffold", "training": {"optimiser": "adamw"}}),
            Setting("idle", {"stop": {"patience": 3}}),
            Setting("missing", missing),
            Setting("missing-too", missing),
            seeds=(0, 1),
        )
    head, *lines = str(refused.value).splitlines()
    assert head == "this sweep cannot run, and nothing was started:"
    told = dict(line.strip().split(": ", 1) for line in lines)
    assert list(told) == [
        "typo", "name", "method", "network", "clash", "idle", "missing, missing-too"
    ]  # fmt: skip
    assert "Did you mean 'lr'?" in told["typo"]
    assert "Did you mean 'uniform'?" in told["name"]
    assert "Did you mean 'fedprox'?" in told["method"]
    assert "Did you mean 'fast_scnn'?" in told["network"]
    assert "only training.optimiser = 'sgd' tells" in told["clash"]
    assert "nothing is scored" in told["idle"]


def test_whose_a_folder_is(tmp_path: Path) -> None:
    (run,) = planned(Setting("a", {}), training={"lr": 0.5})
    assert run.found_in(tmp_path) == ""
    folder = run_folder(tmp_path / run.name, [0.5], name="a", training={"lr": 0.5})
    assert run.found_in(tmp_path) == "finished"
    (folder / "rounds.jsonl").write_text("")
    assert run.found_in(tmp_path) == ""  # without a checkpoint it begins anew
    (other,) = planned(Setting("a", {}), training={"lr": 0.25})
    with pytest.raises(CheckpointError, match="a run of another experiment"):
        other.found_in(tmp_path)


def test_a_centralised_run_is_known_by_the_federation_it_stands_for(tmp_path: Path) -> None:
    """Its own experiment says what its one client did."""
    small = {"size": [48, 64], "sources": [{"conditions": ["day"], "frames_per_drive": 1}]}
    data = {**small, "cache": str(tmp_path / "cache")}
    pooled = Setting("a", {"baseline": {"images_share": 2.0}}, "centralised")
    (run,) = planned(pooled, data=data)
    alone, _ = centralised(run.experiment, open_fleet_data(run.experiment))
    assert alone.digest != run.experiment.digest
    run_folder(tmp_path / run.name, [0.5], **alone.model_dump(mode="json", exclude={"method"}))
    assert run.found_in(tmp_path) == "finished"
    for other in (
        Setting("a", {"baseline": {"images_share": 3.0}}, "centralised"),
        Setting("a", {"baseline": {"images_share": 2.0}, "training": {"lr": 0.5}}, "centralised"),
        Setting("a", {"baseline": {"images_share": 2.0}}),
    ):
        (another,) = planned(other, data=data)
        with pytest.raises(CheckpointError, match="another experiment"):
            another.found_in(tmp_path)


def test_a_base_is_no_baseline_s_own_experiment() -> None:
    with pytest.raises(ConfigError, match="the base is the local baseline of another experiment"):
        planned(Setting("a", {}), baseline={"kind": "local"})
