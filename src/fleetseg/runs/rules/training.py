"""Options of the network and of local training that have no effect."""

from __future__ import annotations

from collections.abc import Callable

from fleetseg.config import LabelSubsetConfig
from fleetseg.data.styles import STYLES
from fleetseg.learning.schedules import first_round_after
from fleetseg.runs.rules.rule import Facts, Rule, only_with

_WITH_PARAMETERS = (
    "prox", "dyn", "drift", "client momentum", "sam", "asam", "moon", "fedspeed", "mimelite",
)  # fmt: skip
"""Objectives with a section of their own."""


def _loss_lacks(*names: str) -> Callable[[Facts], bool]:
    return lambda f: not set(names) & set(f.experiment.training.loss.split("+"))


def _never_fixes_norms(facts: Facts) -> bool:
    share, rounds = facts.experiment.training.freeze_bn_after, facts.experiment.federation.rounds
    return first_round_after(share, rounds) > rounds


def _uses_no_style(facts: Facts) -> bool:
    experiment = facts.experiment
    shown = experiment.training.style.probability or experiment.pretrain.style_probability
    return shown == 0 and experiment.federation.clustered_by != STYLES


def _labels_everything(facts: Facts) -> bool:
    partition = facts.experiment.partition
    elsewhere = facts.over_network or partition.kind == "file"  # a manifest may name subsets
    return not elsewhere and partition.label_subset == LabelSubsetConfig()


def _learns_by_labels(facts: Facts) -> bool:
    return facts.experiment.training.supervision not in ("self_training", "discrepancy")


TRAINING_RULES: tuple[Rule, ...] = (
    Rule(("model.name", "model.pretrained", "model.start", "model.normalisation"),
         lambda f: f.own_net,
         "the network is your own"),
    Rule(("training.freeze_bn_after", "federation.statistics", "evaluation.norms",
          "evaluation.norms_on_clients"), lambda f: f.experiment.model.norm == "group",
         "with model.norm = 'group' there are no batch norms"),
    only_with("model.norm", "group", "model.norm_groups"),
    Rule(("model.pretrained",), lambda f: bool(f.experiment.model.start),
         "model.start gives all weights"),
    only_with("training.optimiser", "sgd", "training.momentum", "training.nesterov"),
    Rule(("training.local_epochs",), lambda f: f.experiment.training.local_steps > 0,
         "training.local_steps says how long a vehicle trains"),
    Rule(("training.freeze_bn_after",), _never_fixes_norms, "no round comes after that share"),
    Rule(("training.warmup_rounds",),
         lambda f: f.experiment.training.warmup_rounds >= f.experiment.federation.rounds,
         "all rounds are warm-up, and training.lr is never reached"),
    Rule(("training.ohem_fraction",), _loss_lacks("ohem", "ohem_feddrive"),
         "training.loss has no 'ohem'"),
    Rule(("training.focal_gamma",), _loss_lacks("focal"), "training.loss has no 'focal'"),
    Rule(("training.entropy",), _loss_lacks("entropy"), "training.loss has no 'entropy'"),
    Rule(("training.class_weights",), _loss_lacks("ce", "ohem", "focal", "ohem_feddrive",
                                                   "ohem_fedseg"),
         "training.loss has no part that takes class weights"),
    *(only_with("training.objective", name, f"training.{name.replace(' ', '_')}")
      for name in _WITH_PARAMETERS),
    Rule(("training.supervision",),
         lambda f: f.experiment.training.supervision == "label subset"
         and (f.own_data or _labels_everything(f)),
         "every vehicle labels all classes; see partition.label_subset"),
    Rule(("training.calibration_tau",),
         lambda f: f.experiment.training.calibration in ("none", "restricted softmax"),
         "training.calibration takes no strength"),
    only_with("training.supervision", "pixel contrast", "training.pixel_contrast"),
    Rule(("training.style.probability", "training.style.per", "training.style.images",
          "training.style.noise"), lambda f: f.experiment.training.style.kind == "none",
         "training.style.kind is 'none'"),
    Rule(("training.style.kind",), _uses_no_style,
         "training.style.probability is 0"),
    only_with("training.style.kind", "fda", "training.style.fda"),
    only_with("training.style.kind", "cfsi", "training.style.cfsi"),
    Rule(("training.weather.kinds", "training.weather.severity"),
         lambda f: f.experiment.training.weather.probability == 0,
         "training.weather.probability is 0"),
    Rule(("training.mixstyle.alpha", "training.mixstyle.stages"),
         lambda f: f.experiment.training.mixstyle.probability == 0,
         "training.mixstyle.probability is 0"),
    Rule(("training.feature_distance.classes", "training.feature_distance.ratio"),
         lambda f: f.experiment.training.feature_distance.weight == 0,
         "training.feature_distance.weight is 0"),
    Rule(("training.mixstyle.probability",), lambda f: f.experiment.training.batch_size == 1,
         "training.batch_size is 1, and there is no other image to mix with"),
    Rule(("training.fedfa.stages",), lambda f: f.experiment.training.fedfa.probability == 0,
         "training.fedfa.probability is 0"),
    Rule(("training.fedfa.probability",), lambda f: f.experiment.training.batch_size == 1,
         "training.batch_size is 1, and one image's statistics have no variance"),
    only_with("training.supervision", "self_training", "training.self_training"),
    only_with("training.supervision", "discrepancy", "training.discrepancy"),
    Rule(("safety",), _learns_by_labels,
         "training.supervision is neither 'self_training' nor 'discrepancy'"),
    Rule(("partition.label_subset",),
         lambda f: f.experiment.training.supervision == "discrepancy",
         "training.supervision = 'discrepancy' uses no vehicle's labels"),
    only_with("training.self_training.teacher", "swa", "training.self_training.swa_start"),
    only_with("training.self_training.teacher", "ema", "training.self_training.ema"),
    Rule(("training.self_training.confidence",),
         lambda f: f.experiment.training.self_training.select == "class share",
         "self_training.select = 'class share' does not go by it"),
    Rule(("training.self_training.top",),
         lambda f: f.experiment.training.self_training.select in ("threshold", "quality"),
         "self_training.select does not go by shares of classes"),
    Rule(("training.self_training.normalise",),
         lambda f: f.experiment.training.self_training.select == "quality",
         "self_training.select = 'quality' is divided by all pixels"),
    Rule(("training.habits.same_order",), lambda f: f.experiment.training.local_steps > 0,
         "training.local_steps goes on in the epoch where the round before ended"),
)  # fmt: skip
