"""Every preset: its paper is named, it runs, workers make the same, and so does a resumed run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.experiments import tiny_experiment
from torch import nn

import fleetseg
from fleetseg import rng
from fleetseg.config import Experiment
from fleetseg.experiment_file import make_experiment
from fleetseg.federation.records import RoundRecord
from fleetseg.federation.rounds import Watcher
from fleetseg.methods import METHODS, laid_under
from fleetseg.models.build import wrap
from fleetseg.runs.choices import check_choices
from fleetseg.runs.option_notes import option_notes
from fleetseg.runs.rules import Facts

OWN_DATA: dict[str, object] = {"evaluation": []}
OWN_FRAMES: dict[str, dict[str, object]] = {"partition": {"holdout": 0.4, "holdout_gap": 0}}
"""Models of the clients' own are scored on frames of the clients' own."""
SCORED_ON_CLIENTS = {"fedbn"}
"""Presets whose server has no whole model, so that it is scored where the rest of it is."""
STAGED = {name: {name: {"stages": [2]}} for name in ("mixstyle", "fedfa")}
"""Presets that do something to the stages of a network, and where they find one in a small one."""
UNSAFE: dict[str, object] = {"max_loss": 1.0, "collapse": 0.0}
"""A network that has learnt nothing teaches itself nothing, and would be stopped at once."""
SOURCES: dict[str, object] = {
    "sources": [{"conditions": ["rain"], "cities": ["coral"], "frames_per_drive": 2}]
}
"""What the server trains on before the fleet, where a preset says how."""
each_preset = pytest.mark.parametrize("name", METHODS)


def small_net(name: str = "") -> nn.Module:
    """Make a network for a preset: with a stage of stride 2 where one is asked for."""
    stride = 2 if name in STAGED else 1
    with rng.torch_default(0, purpose="preset-test"):
        net = nn.Sequential(
            nn.Conv2d(3, 6, 3, stride, padding=1), nn.BatchNorm2d(6), nn.ReLU(),
            nn.Conv2d(6, 11, stride, stride),
        )  # fmt: skip
    return wrap(net, 11, head_prefixes=["3."])


def experiment(name: str, cache: Path, kind: str = "inprocess") -> Experiment:
    fields = METHODS[name].fields
    training = laid_under(
        fields.get("training", {}), {"batch_size": 2, "lr": 0.01, "local_epochs": 2}
    )
    training = laid_under(training, STAGED.get(name, {}))
    federation = laid_under(fields.get("federation", {}), {"rounds": 4, "cohort": 3})
    if "clustered_by" in fields.get("federation", {}):  # so few vehicles would be one cluster
        federation = laid_under(federation, {"cluster_models": {"count": 2}})
    # One batch of three frames and two of four: not all vehicles take as many steps.
    cities = [
        {"conditions": ["day"], "cities": ["amber"], "frames_per_drive": 3},
        {"conditions": ["day"], "cities": ["birch"], "frames_per_drive": 4},
    ]
    data: dict[str, object] = {"sources": cities}
    sections: dict[str, dict[str, object]] = {}
    if "personal" in fields:
        data, sections = {**data, **OWN_DATA}, {"personal": fields["personal"], **OWN_FRAMES}
    if name in SCORED_ON_CLIENTS:
        data, sections = {**data, **OWN_DATA}, dict(OWN_FRAMES)
    sections["evaluation"] = dict(fields.get("evaluation", {}))
    if "unlabelled" in fields.get("partition", {}):
        sections |= {"partition": fields["partition"], "safety": UNSAFE}
    if "pretrain" in fields:
        sections["pretrain"] = {**fields["pretrain"], **SOURCES, "rounds": 2, "steps": 1}
    return tiny_experiment(
        cache,
        data=data,
        training=training,
        federation=federation,
        engine={"kind": kind, "workers": 2},
        **sections,
    )


def scores_of(run: fleetseg.Run) -> Any:
    assert run.scores is not None
    return run.scores.to_dict()


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def whole(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, fleetseg.Run]:
    """Each preset's run in this process, made when it is first asked for."""
    folder = tmp_path_factory.mktemp("whole")

    class Runs(dict[str, fleetseg.Run]):
        def __missing__(self, name: str) -> fleetseg.Run:
            run = fleetseg.run(experiment(name, cache), net=small_net(name), out=folder / name)
            return self.setdefault(name, run)

    return Runs()


@each_preset
def test_it_can_be_asked_for_by_its_name_alone(name: str) -> None:
    needs = {"pretrain": SOURCES} if "pretrain" in METHODS[name].fields else {}
    described = make_experiment({"method": name, **needs})
    check_choices(described)
    assert option_notes(Facts(described, scored=True)) == ()
    preset = METHODS[name]
    assert preset.url.startswith("https://")
    assert 2016 <= preset.year <= 2026
    assert preset.new.endswith(".")
    assert preset.authors
    assert preset.title


@each_preset
def test_every_round_has_its_update(name: str, whole: dict[str, fleetseg.Run]) -> None:
    assert [record.quorum for record in whole[name].records] == [True] * 4


def test_vehicles_that_label_different_classes(cache: Path, tmp_path: Path) -> None:
    """FedSeg in its own setting: workers erase alike, and the classes that are labelled matter."""
    runs = []
    for kind, classes in (("inprocess", 2), ("workers", 2), ("inprocess", 3)):
        described = experiment("fedseg", cache, kind)
        rule = described.partition.label_subset.model_copy(update={"classes": classes})
        partition = described.partition.model_copy(update={"label_subset": rule})
        described = described.model_copy(update={"partition": partition})
        out = tmp_path / f"{kind}-{classes}"
        runs.append(fleetseg.run(described, net=small_net(), out=out).model_sha256)
    assert runs[0] == runs[1]
    assert runs[0] != runs[2]


def test_no_two_make_the_same_model(whole: dict[str, fleetseg.Run]) -> None:
    by_digest: dict[str, list[str]] = {}
    for name in METHODS:  # or the same global model, and others of the clients' own
        personal = json.dumps(scores_of(whole[name]).get("personal"))
        by_digest.setdefault(whole[name].model_sha256 + personal, []).append(name)
    assert [names for names in by_digest.values() if len(names) > 1] == []


@each_preset
def test_workers_make_the_same(
    name: str, whole: dict[str, fleetseg.Run], cache: Path, tmp_path: Path
) -> None:
    run = fleetseg.run(
        experiment(name, cache, "workers"), net=small_net(name), out=tmp_path / "run"
    )
    assert run.model_sha256 == whole[name].model_sha256
    assert scores_of(run) == scores_of(whole[name])


@each_preset
def test_after_a_crash_it_goes_on_to_the_same(
    name: str, whole: dict[str, fleetseg.Run], cache: Path, tmp_path: Path
) -> None:
    def crash(record: RoundRecord) -> None:
        if record.round == 2:
            raise RuntimeError("power failure")

    described, out = experiment(name, cache), tmp_path / "run"
    with pytest.raises(RuntimeError, match="power failure"):
        fleetseg.run(described, net=small_net(name), out=out, watcher=Watcher(round_closed=crash))
    resumed = fleetseg.run(described, net=small_net(name), out=out, resume=True)
    assert resumed.model_sha256 == whole[name].model_sha256
    assert scores_of(resumed) == scores_of(whole[name])
