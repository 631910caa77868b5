"""An option that nothing reads is found, and one that counts is left alone."""

from __future__ import annotations

from typing import Any

import pytest

from fleetseg.config import Experiment
from fleetseg.experiment_file import make_experiment
from fleetseg.runs.option_notes import option_notes
from fleetseg.runs.rules import RULES, Facts

TEST_SET = {"evaluation": [{"split": "val"}]}


def notes(fields: dict[str, Any], **facts: bool) -> tuple[str, ...]:
    return option_notes(Facts(make_experiment(fields), **{"scored": True, **facts}))


IDLE: dict[str, tuple[dict[str, Any], dict[str, bool]]] = {
    "partition.alpha": ({"partition": {"alpha": 0.1}}, {}),
    "partition.min_size": ({"partition": {"kind": "iid", "clients": 2, "min_size": 4}}, {}),
    "partition.piece": ({"partition": {"kind": "iid", "clients": 2, "piece": 4}}, {}),
    "partition.by": ({"partition": {"kind": "iid", "clients": 2, "by": "city"}}, {}),
    "partition.file": ({"partition": {"file": "split.json"}}, {}),
    "partition.clients": ({"partition": {"kind": "file", "file": "x", "clients": 3}}, {}),
    "partition.holdout_gap": ({"partition": {"holdout_gap": 3}}, {}),
    "training.momentum": ({"training": {"optimiser": "adamw", "momentum": 0.5}}, {}),
    "training.local_epochs": ({"training": {"local_steps": 5, "local_epochs": 2}}, {}),
    "training.habits.same_order": (
        {"training": {"local_steps": 5, "habits": {"same_order": True}}}, {}),
    "training.warmup_rounds": ({"training": {"warmup_rounds": 10}}, {}),
    "training.ohem_fraction": ({"training": {"ohem_fraction": 0.5}}, {}),
    "training.focal_gamma": ({"training": {"loss": "ce+dice", "focal_gamma": 1.0}}, {}),
    "training.class_weights": ({"training": {"loss": "dice", "class_weights": "fleet"}}, {}),
    "training.self_training": ({"training": {"self_training": {"blur": 0.1}}}, {}),
    "training.self_training.ema": (
        {"training": {"supervision": "self_training", "self_training": {"ema": 0.5}}}, {}),
    "training.self_training.swa_start": (
        {"training": {"supervision": "self_training", "self_training": {"swa_start": 0.5}}}, {}),
    "training.self_training.top": (
        {"training": {"supervision": "self_training",
                      "self_training": {"select": "quality", "top": 0.5}}}, {}),
    "training.discrepancy": ({"training": {"discrepancy": {"extractor_steps": 2}}}, {}),
    "partition.label_subset": (
        {"training": {"supervision": "discrepancy"}, "partition": {"label_subset": {"classes": 2}}},
        {}),
    "tracking.project": ({"tracking": {"project": "cars"}}, {}),
    "tracking.pictures": (
        {"evaluation": {"pictures": 0}, "tracking": {"to": ["tensorboard"], "pictures": 1}}, {}),
    "safety": ({"safety": {"max_loss": 0.1}}, {}),
    "pretrain": ({"pretrain": {"epochs": 3}}, {}),
    "training.sam": ({"training": {"sam": {"rho": 0.2}}}, {}),
    "training.asam": ({"training": {"objective": "sam", "asam": {"eta": 0.1}}}, {}),
    "training.moon": ({"training": {"moon": {"mu": 5.0}}}, {}),
    "training.fedspeed": ({"training": {"fedspeed": {"mu": 0.5}}}, {}),
    "training.weather.kinds": ({"training": {"weather": {"kinds": ["fog"]}}}, {}),
    "training.weather.severity": ({"training": {"weather": {"severity": [0.1, 0.2]}}}, {}),
    "training.mixstyle.alpha": ({"training": {"mixstyle": {"alpha": 0.3}}}, {}),
    "training.mixstyle.probability": (
        {"training": {"batch_size": 1, "mixstyle": {"probability": 0.5}}}, {}
    ),
    "training.fedfa.stages": ({"training": {"fedfa": {"stages": [8]}}}, {}),
    "training.fedfa.probability": (
        {"training": {"batch_size": 1, "fedfa": {"probability": 0.5}}}, {}
    ),
    "training.feature_distance.classes": (
        {"training": {"feature_distance": {"classes": ["car"]}}}, {}
    ),
    "training.feature_distance.ratio": ({"training": {"feature_distance": {"ratio": 0.5}}}, {}),
    "training.mimelite": ({"training": {"mimelite": {"beta": 0.5}}}, {}),
    "training.style.per": ({"training": {"style": {"per": "image"}}}, {}),
    "training.style.noise": ({"training": {"style": {"noise": 1.0}}}, {}),
    "training.style.kind": ({"training": {"style": {"kind": "lab", "probability": 0.0}}}, {}),
    "training.style.fda": ({"training": {"style": {"kind": "lab", "fda": {"window": 2}}}}, {}),
    "training.style.cfsi": ({"training": {"style": {"kind": "fda", "cfsi": {"share": 0.1}}}}, {}),
    "federation.over_selection": ({"federation": {"over_selection": 1.5}}, {}),
    "federation.sampler": ({"federation": {"sampler": "other"}}, {}),
    "federation.server_lr": ({"federation": {"server_optimiser": "queue", "server_lr": 0.5}}, {}),
    "federation.server_momentum": (
        {"federation": {"server_optimiser": "drift", "server_momentum": 0.5}}, {},
    ),
    "federation.queue": ({"federation": {"queue": {"length": 3}}}, {}),
    "federation.extrapolated": ({"federation": {"extrapolated": {"eps": 0.1}}}, {}),
    "training.dyn": ({"training": {"objective": "drift", "dyn": {"alpha": 0.5}}}, {}),
    "training.drift": ({"training": {"objective": "dyn", "drift": {"alpha": 0.5}}}, {}),
    "training.client_momentum": ({"training": {"client_momentum": {"alpha": 0.5}}}, {}),
    "federation.fedgau": ({"federation": {"fedgau": {"epsilon": 1.0}}}, {}),
    "federation.gap": ({"federation": {"gap": {"step": 1.0}}}, {}),
    "federation.qffl": ({"federation": {"qffl": {"q": 2.0}}}, {}),
    "federation.clusters": ({"federation": {"clusters": {"count": 2}}}, {}),
    "federation.cluster_models": ({"federation": {"cluster_models": {"count": 2}}}, {}),
    "federation.cluster_models.max_count": (
        {"federation": {"clustered_by": "class mix",
                        "cluster_models": {"count": 2, "max_count": 5}}},
        {},
    ),
    "federation.cluster_models.spread": (
        {"federation": {"clustered_by": "class mix", "cluster_models": {"spread": 0.5}}}, {}
    ),
    "federation.cluster_models.stages": (
        {"federation": {"clustered_by": "class mix", "cluster_models": {"stages": ["head"]}}}, {}
    ),
    "federation.power_of_choice": ({"federation": {"power_of_choice": {"candidates": 2}}}, {}),
    "federation.oort": ({"federation": {"oort": {"clip": 0.5}}}, {}),
    "federation.oort.pace": (
        {"federation": {"sampler": "oort", "cohort": 2, "oort": {"pace": 0.5}}}, {}
    ),
    "federation.stages": ({"federation": {"stages": ["encoder"]}}, {}),
    "personal.model": ({"personal": {"model": "ditto"}}, {"own_frames": False}),
    "personal.model = 'own'": ({"personal": {"model": "own"}}, {}),
    "personal.scored": ({"personal": {"scored": "always"}}, {}),
    "personal.epochs": ({"personal": {"model": "ditto", "steps": 3, "epochs": 2}}, {}),
    "personal.learns": ({"method": "fedper", "personal": {"learns": "head"}}, {}),
    "personal.pull": ({"personal": {"model": "fine-tuned", "pull": 0.1}}, {}),
    "federation.deadline_s": ({"federation": {"deadline_s": 3.0}}, {}),
    "federation.faults.slowdown": ({"federation": {"faults": {"slowdown": 4.0}}}, {}),
    "evaluation.every": ({"evaluation": {"every": 3}}, {"scored": False}),
    "stop.min_gain": ({"stop": {"min_gain": 0.1}}, {}),
    "model.pretrained": ({"model": {"pretrained": "imagenet", "start": "x"}}, {}),
    "model.normalisation": ({"model": {"normalisation": "half"}}, {"own_net": True}),
    "model.name": ({"model": {"name": "bisenetv2"}}, {"own_net": True}),
    "data.sources": ({"data": {"sources": [{"cities": ["amber"]}]}}, {"own_data": True}),
    "data.store": ({"data": {"store": "files"}}, {"own_data": True}),
}  # fmt: skip


@pytest.mark.parametrize("option", IDLE)
def test_an_option_that_nothing_reads(option: str) -> None:
    fields, facts = IDLE[option]
    (told,) = (n for n in notes(fields, **facts) if n.startswith(option))
    assert " has no effect: " in told


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"partition": {"kind": "dirichlet", "clients": 3, "alpha": 0.1, "min_size": 1}},
        {"partition": {"by": "city", "piece": 3}},
        {"partition": {"holdout": 0.2, "holdout_gap": 3}},
        {"training": {"momentum": 0.5, "nesterov": True, "warmup_rounds": 2}},
        {"training": {"loss": "ohem+dice", "ohem_fraction": 0.5, "class_weights": "fleet"}},
        {"training": {"freeze_bn_after": 0.5}},
        {"training": {"style": {"kind": "fda", "per": "image", "fda": {"window": 2}}}},
        {"federation": {"cohort": 0.5, "over_selection": 1.5}},
        {"federation": {"clustered_by": "class mix", "cluster_models": {"max_count": 5}}},
        {"federation": {"clustered_by": "loss", "cluster_models": {"count": 2, "spread": 0.5}}},
        {"federation": {"cohort": 1, "over_selection": 1.5}},
        {"federation": {"deadline_s": 3.0, "faults": {"dropout": 0.1}}},
        {"federation": {"deadline_s": 3.0}, "engine": {"kind": "fleet", "workers": 2}},
        {"data": TEST_SET, "stop": {"target_miou": 0.5, "patience": 3, "min_gain": 0.1}},
        {"data": TEST_SET, "evaluation": {"every": 5}},
    ],
    ids=str,
)
def test_an_option_that_counts_is_left_alone(fields: dict[str, Any]) -> None:
    assert notes(fields) == ()


def test_vehicles_elsewhere_are_waited_for_and_bring_their_own_split() -> None:
    fields = {"federation": {"deadline_s": 3.0}, "partition": {"alpha": 0.1}}
    assert notes(fields, over_network=True) == ()


def test_rules_name_options_that_there_are() -> None:
    for rule in RULES:
        for option in rule.options:
            section: Any = Experiment()
            for part in option.split("."):
                section = getattr(section, part)
