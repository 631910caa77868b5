"""Notes on options of an experiment that have no effect, and errors for those that contradict.

An option that is set to another value than its default where nothing reads it gets a note; a
contradiction is refused.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from fleetseg.config import Experiment, SourceConfig
from fleetseg.errors import ConfigError
from fleetseg.federation.sharing import OWN_STATISTICS
from fleetseg.runs.rules import RULES, Facts
from fleetseg.runs.rules.rule import value_of

_UNSCORED_CURE = (
    "Add [[data.evaluation]] or partition.holdout (in Python: evaluation=), or take the option out"
)


def option_notes(facts: Facts) -> tuple[str, ...]:
    """Name the options that are set without effect, and why; each once.

    >>> option_notes(Facts(Experiment(partition={"alpha": 0.1}), scored=True))
    ("partition.alpha = 0.1 has no effect: kind is not 'dirichlet'",)
    """
    told: dict[str, str] = {}
    for rule in RULES:
        for option in rule.options:
            value = value_of(facts.experiment, option)
            if value != value_of(_DEFAULTS, option) and rule.idle(facts):
                shown = f"{option}{_shown(value)} has no effect: {rule.because}"
                told.setdefault(option, shown)
    return (*told.values(), *_lone_notes(facts))


def _lone_notes(facts: Facts) -> list[str]:
    experiment, notes = facts.experiment, []
    opened_here = not facts.own_data and not facts.over_network
    in_files = opened_here and experiment.data.store == "files"
    for number, source in enumerate((*experiment.data.sources, *experiment.data.evaluation), 1):
        if source.kind == "synthetic" and source.root:
            notes.append(f"source {number}: root has no effect: the synthetic drives are painted")
        if source.kind == "synthetic" and in_files:
            notes.append(
                f"source {number}: there are no files, so data.store = 'files' paints every "
                "picture anew for each use"
            )
        painted = ("frames_per_drive", "seed")
        unread = [name for name in painted if _differs(source, name)]
        if source.kind != "synthetic" and unread:
            what = ", ".join(unread)
            notes.append(f"source {number}: {what} count for kind = 'synthetic' only")
    held_out = experiment.partition.holdout and not experiment.evaluation.on_clients
    if held_out and experiment.data.evaluation and not facts.own_data:
        notes.append(
            "partition.holdout keeps frames from training that nothing scores, because there is "
            "[[data.evaluation]]; set evaluation.on_clients = true, or leave one of the two out"
        )
    notes += _federation_notes(experiment)
    stop, every = experiment.stop, experiment.evaluation.every
    watched = _watched(experiment)
    scorings = experiment.federation.rounds // every if every else 0
    if watched and scorings < 1:
        notes.append(f"{watched} cannot end the run early: only its last round is scored")
    elif stop.patience >= scorings > 0:
        notes.append(
            f"stop.patience = {stop.patience} cannot end the run early: it has "
            f"{scorings} evaluations (evaluation.every = {every})"
        )
    return notes


def _federation_notes(experiment: Experiment) -> list[str]:
    notes = []
    if _averages_statistics(experiment):
        notes.append(
            "federation.publishing = 'swa' averages running statistics, which are not those of the "
            "averaged weights; use federation.statistics = 'estimated'"
        )
    if _has_another_rate(experiment):
        notes.append(
            f"federation.qffl.lipschitz = {experiment.federation.qffl.lipschitz} is not 1 / "
            f"training.lr = {1 / experiment.training.lr:g}, by which q-fedavg makes gradients of "
            "changes: its steps are shorter where it is larger, and longer where it is smaller"
        )
    if experiment.federation.faults.dropout == 1:
        notes.append("federation.faults.dropout = 1 loses every vehicle in every round")
    return notes


def _has_another_rate(experiment: Experiment) -> bool:
    federation = experiment.federation
    product = federation.qffl.lipschitz * experiment.training.lr
    return federation.aggregator == "q-fedavg" and not math.isclose(product, 1.0, rel_tol=0.01)


def _averages_statistics(experiment: Experiment) -> bool:
    federation, training = experiment.federation, experiment.training
    return (
        federation.publishing == "swa"
        and federation.statistics != "estimated"
        and federation.sharing not in OWN_STATISTICS
        and experiment.model.norm == "batch"
        and training.freeze_bn_after > federation.swa.start  # else all averaged models share theirs
    )


def require_workable(facts: Facts) -> None:
    """Refuse what can never work as specified.

    Raises:
        ConfigError: a stop condition depends on scores, and nothing is scored; over a network,
            something that vehicles there cannot know or have.
    """
    if facts.over_network and facts.experiment.training.supervision == "discrepancy":
        raise ConfigError(
            "training.supervision = 'discrepancy' needs the server's labelled images on every "
            "vehicle, and over a network vehicles have only their own",
            cure="Use 'self_training', or simulate the fleet where all images are at hand",
        )
    if facts.over_network and facts.experiment.partition.unlabelled.share:
        raise ConfigError(
            "partition.unlabelled.share is drawn among vehicles that are not known beforehand",
            cure="Name those whose labels are not to be read: partition.unlabelled.clients",
        )
    stage = facts.experiment.pretrain
    if facts.over_network and stage.sources and stage.style_probability:
        raise ConfigError(
            "pretrain.style_probability needs the vehicles' styles before the first stage, and "
            "over a network vehicles tell them when they enrol, which is after it",
            cure="Leave it out (0.0), or train the first stage where their images are at hand and "
            "set model.start to its folder",
        )
    watched = _watched(facts.experiment)
    if watched and not facts.scored:
        raise ConfigError(
            f"{watched} can never stop the run: nothing is scored after a round",
            cure=_UNSCORED_CURE,
        )


def _watched(experiment: Experiment) -> str:
    stop = experiment.stop
    named = {"stop.target_miou": stop.target_miou, "stop.patience": stop.patience}
    return " and ".join(name for name, value in named.items() if value)


def _shown(value: object) -> str:
    if isinstance(value, bool):
        return f" = {str(value).lower()}"
    return f" = {value!r}" if isinstance(value, int | float | str) else ""


def _differs(section: SourceConfig, name: str) -> bool:
    return bool(getattr(section, name) != getattr(_A_SOURCE, name))


_DEFAULTS, _A_SOURCE = Experiment(), SourceConfig()


def expected_scores(experiment: Experiment) -> bool:
    """Say whether an experiment with data on disk has anything to score on."""
    return bool(experiment.data.evaluation) or experiment.partition.holdout > 0


def has_own_frames(experiment: Experiment) -> bool:
    """Say whether vehicles have frames of their own that are scored."""
    return experiment.partition.holdout > 0 or experiment.evaluation.on_clients


def notes_before(experiment: Experiment) -> Sequence[str]:
    """Return the notes that follow from an experiment file alone."""
    scored = expected_scores(experiment)
    return option_notes(Facts(experiment, scored, own_frames=has_own_frames(experiment)))
