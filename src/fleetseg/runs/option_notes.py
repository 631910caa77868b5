"""Options of an experiment that have no effect, or can have none: what is said of them.

An option that is set (to another value than its default) where nothing reads it gets a note; what
contradicts itself is refused.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from fleetseg.config import Experiment, SourceConfig
from fleetseg.errors import ConfigError

_UNSCORED_CURE = (
    "Add [[data.evaluation]] or partition.holdout (in Python: evaluation=), or take the option out"
)


@dataclass(frozen=True)
class Facts:
    """What decides whether an option has an effect."""

    experiment: Experiment
    scored: bool  # there is something to score on after a round
    over_network: bool = False  # clients are on other machines, whatever [engine] says
    own_net: bool = False  # the network is the caller's
    own_data: bool = False  # the samples are the caller's
    own_frames: bool = True  # clients have frames of their own to be scored on

    @property
    def on_a_fleet(self) -> bool:
        """Whether replies take real time to arrive."""
        return self.over_network or self.experiment.engine.kind == "fleet"


@dataclass(frozen=True)
class Rule:
    """Options that nothing reads if `idle` is true, and why."""

    options: tuple[str, ...]
    idle: Callable[[Facts], bool]
    because: str


def _partition(*kinds: str) -> Callable[[Facts], bool]:
    return lambda f: not f.over_network and f.experiment.partition.kind not in kinds


def _loss_lacks(*names: str) -> Callable[[Facts], bool]:
    return lambda f: not set(names) & set(f.experiment.training.loss.split("+"))


def _calm(facts: Facts) -> bool:
    faults = facts.experiment.federation.faults
    return faults.dropout == 0 and faults.stragglers == 0


def _to_a_mean(facts: Facts) -> bool:
    return facts.experiment.federation.server_optimiser in ("drift", "queue")


def _objective_lacks(name: str) -> Callable[[Facts], bool]:
    return lambda f: f.experiment.training.objective != name


def _adaptive(facts: Facts) -> bool:
    return facts.experiment.federation.server_optimiser in ("adam", "yogi", "adagrad")


def _none_slow(facts: Facts) -> bool:
    return facts.experiment.federation.faults.stragglers == 0


def _asks_all(facts: Facts) -> bool:
    cohort = facts.experiment.federation.cohort
    return isinstance(cohort, float) and cohort == 1.0


def _never_fixes_norms(facts: Facts) -> bool:
    share, rounds = facts.experiment.training.freeze_bn_after, facts.experiment.federation.rounds
    return rounds <= share * rounds + 1e-9


_WITH_PARAMETERS = (
    "prox", "dyn", "drift", "client momentum", "sam", "asam", "moon", "fedspeed", "mimelite",
)  # fmt: skip
"""Objectives with a section of their own."""


def _labels_everything(facts: Facts) -> bool:
    partition = facts.experiment.partition
    elsewhere = facts.over_network or partition.kind == "file"  # a manifest may name subsets
    return not elsewhere and partition.label_subset == _DEFAULTS.partition.label_subset


def _owns_nothing(facts: Facts) -> bool:
    experiment = facts.experiment
    return experiment.personal.model == "own" and experiment.federation.sharing == "all"


def _trains_no_own_model(facts: Facts) -> bool:
    return facts.experiment.personal.model not in ("fine-tuned", "ditto")


_OWN_STATISTICS = ("silobn", "fedbn")


def _scores_no_clients(facts: Facts) -> bool:
    experiment = facts.experiment
    on_server = bool(experiment.data.evaluation) or experiment.partition.holdout == 0
    return on_server and not experiment.evaluation.on_clients


def _adapts_nothing(facts: Facts) -> bool:
    settings = facts.experiment.evaluation
    return "adapted" not in (settings.norms, settings.norms_on_clients)


RULES: tuple[Rule, ...] = (
    Rule(("partition.by", "partition.piece"), _partition("natural"), "kind is not 'natural'"),
    Rule(("partition.alpha", "partition.min_size"), _partition("dirichlet"),
         "kind is not 'dirichlet'"),
    Rule(("partition.file",), _partition("file"), "kind is not 'file'"),
    Rule(("partition.clients",), lambda f: f.experiment.partition.kind == "file",
         "the file says who the vehicles are"),
    Rule(("partition.kind", "partition.by", "partition.clients", "partition.holdout"),
         lambda f: f.own_data, "the samples come with their vehicles"),
    Rule(("partition.label_subset",), lambda f: f.own_data or f.over_network,
         "the samples come with their labels"),
    Rule(("partition.holdout_gap",), lambda f: f.experiment.partition.holdout == 0,
         "partition.holdout is 0"),
    Rule(("data.sources", "data.evaluation", "data.store"), lambda f: f.own_data,
         "the samples are your own"),
    Rule(("model.name", "model.pretrained", "model.start", "model.normalisation"),
         lambda f: f.own_net,
         "the network is your own"),
    Rule(("training.freeze_bn_after", "federation.statistics", "evaluation.norms",
          "evaluation.norms_on_clients"), lambda f: f.experiment.model.norm == "group",
         "with model.norm = 'group' there are no batch norms"),
    Rule(("model.norm_groups",), lambda f: f.experiment.model.norm != "group",
         "model.norm is not 'group'"),
    Rule(("model.pretrained",), lambda f: bool(f.experiment.model.start),
         "model.start gives all weights"),
    Rule(("training.momentum", "training.nesterov"),
         lambda f: f.experiment.training.optimiser != "sgd", "training.optimiser is not 'sgd'"),
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
    *(Rule((f"training.{name.replace(' ', '_')}",), _objective_lacks(name),
           f"training.objective is not '{name}'") for name in _WITH_PARAMETERS),
    Rule(("training.supervision",),
         lambda f: f.experiment.training.supervision == "label subset"
         and (f.own_data or _labels_everything(f)),
         "every vehicle labels all classes; see partition.label_subset"),
    Rule(("training.calibration_tau",),
         lambda f: f.experiment.training.calibration in ("none", "restricted softmax"),
         "training.calibration takes no strength"),
    Rule(("training.pixel_contrast",),
         lambda f: f.experiment.training.supervision != "pixel contrast",
         "training.supervision is not 'pixel contrast'"),
    Rule(("training.habits.same_order",), lambda f: f.experiment.training.local_steps > 0,
         "training.local_steps goes on in the epoch where the round before ended"),
    Rule(("federation.over_selection", "federation.sampler"), _asks_all,
         "federation.cohort = 1.0 asks the whole fleet already"),
    Rule(("federation.server_momentum",), _adaptive,
         "federation.server_optimiser has federation.adaptive.beta1 instead"),
    Rule(("federation.adaptive",), lambda f: not _adaptive(f),
         "federation.server_optimiser is not 'adam', 'yogi' or 'adagrad'"),
    Rule(("federation.server_lr", "federation.server_momentum"), _to_a_mean,
         "federation.server_optimiser = 'drift' and 'queue' go to a mean of models, not by steps"),
    Rule(("federation.queue",), lambda f: f.experiment.federation.server_optimiser != "queue",
         "federation.server_optimiser is not 'queue'"),
    Rule(("federation.extrapolated",),
         lambda f: f.experiment.federation.aggregator != "extrapolated",
         "federation.aggregator is not 'extrapolated'"),
    Rule(("federation.ema",), lambda f: f.experiment.federation.publishing != "ema",
         "federation.publishing is not 'ema'"),
    Rule(("federation.fedgau",), lambda f: f.experiment.federation.weights != "fedgau",
         "federation.weights is not 'fedgau'"),
    Rule(("federation.gap",), lambda f: f.experiment.federation.weights != "feddg-ga",
         "federation.weights is not 'feddg-ga'"),
    Rule(("federation.qffl",), lambda f: f.experiment.federation.aggregator != "q-fedavg",
         "federation.aggregator is not 'q-fedavg'"),
    Rule(("federation.clusters",), lambda f: f.experiment.federation.sampler != "clusters",
         "federation.sampler is not 'clusters'"),
    Rule(("federation.power_of_choice",),
         lambda f: f.experiment.federation.sampler != "power of choice",
         "federation.sampler is not 'power of choice'"),
    Rule(("federation.oort",), lambda f: f.experiment.federation.sampler != "oort",
         "federation.sampler is not 'oort'"),
    Rule(("federation.oort.slow_penalty", "federation.oort.pace", "federation.oort.pace_step",
          "federation.oort.window"), _none_slow,
         "there are no simulated stragglers, and real times are no part of a result"),
    Rule(("federation.statistics",), lambda f: f.experiment.federation.sharing in _OWN_STATISTICS,
         "federation.sharing leaves running statistics with the vehicles"),
    Rule(("federation.swa",), lambda f: f.experiment.federation.publishing != "swa",
         "federation.publishing is not 'swa'"),
    Rule(("federation.deadline_s",), lambda f: _calm(f) and not f.on_a_fleet,
         "clients on this machine are waited for; it counts with simulated faults or a fleet"),
    Rule(("federation.faults.slowdown",),
         lambda f: f.experiment.federation.faults.stragglers == 0, "there are no stragglers"),
    Rule(("federation.faults.seconds_per_image", "federation.faults.megabytes_per_s"),
         _calm, "there are neither drop-outs nor stragglers"),
    Rule(("evaluation.every", "evaluation.by"),
         lambda f: not f.scored and not f.experiment.evaluation.on_clients,
         "nothing is scored; add [[data.evaluation]] or partition.holdout"),
    Rule(("evaluation.every",),
         lambda f: f.scored and f.experiment.evaluation.every > f.experiment.federation.rounds,
         "the run is shorter, so only its last round is scored"),
    Rule(("federation.stages",), lambda f: f.experiment.federation.sharing != "stages",
         "federation.sharing is not 'stages'"),
    Rule(("personal.model",), lambda f: not f.own_frames,
         "vehicles have no frames of their own to score on; set partition.holdout or "
         "evaluation.on_clients"),
    Rule(("personal.model",), _owns_nothing,
         "federation.sharing = 'all' leaves a vehicle nothing of its own"),
    Rule(("personal.scored",), lambda f: f.experiment.personal.model == "none",
         "personal.model is 'none'"),
    Rule(("personal.epochs", "personal.steps", "personal.lr"), _trains_no_own_model,
         "personal.model is neither 'fine-tuned' nor 'ditto'"),
    Rule(("personal.learns",), lambda f: f.experiment.personal.model != "fine-tuned",
         "personal.model is not 'fine-tuned'"),
    Rule(("personal.epochs",), lambda f: f.experiment.personal.steps > 0,
         "personal.steps says how long a vehicle trains its own model"),
    Rule(("personal.pull",), lambda f: f.experiment.personal.model != "ditto",
         "personal.model is not 'ditto'"),
    Rule(("evaluation.norms",), lambda f: not f.scored,
         "the server scores nothing; add [[data.evaluation]]"),
    Rule(("evaluation.norms_on_clients",), _scores_no_clients, "no vehicle is scored"),
    Rule(("evaluation.adapted",), _adapts_nothing, "no norms are 'adapted'"),
    Rule(("stop.min_gain",), lambda f: f.experiment.stop.patience == 0, "stop.patience is 0"),
)  # fmt: skip


def option_notes(facts: Facts) -> tuple[str, ...]:
    """Say which options that are set have no effect, and why; each once.

    >>> option_notes(Facts(Experiment(partition={"alpha": 0.1}), scored=True))
    ("partition.alpha = 0.1 has no effect: kind is not 'dirichlet'",)
    """
    told: dict[str, str] = {}
    for rule in RULES:
        for option in rule.options:
            value = _value(facts.experiment, option)
            if value != _value(_DEFAULTS, option) and rule.idle(facts):
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
        painted = ("cities", "conditions", "frames_per_drive", "seed")
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
        and federation.sharing not in _OWN_STATISTICS
        and experiment.model.norm == "batch"
        and training.freeze_bn_after > federation.swa.start  # else all averaged models share theirs
    )


def require_workable(facts: Facts) -> None:
    """Refuse what can never do what it says.

    Raises:
        ConfigError: a condition to stop looks at scores, and nothing is scored.
    """
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


def _value(experiment: Experiment, option: str) -> object:
    value: object = experiment
    for part in option.split("."):
        value = getattr(value, part)
    return value


_DEFAULTS, _A_SOURCE = Experiment(), SourceConfig()


def expected_scores(experiment: Experiment) -> bool:
    """Say whether an experiment that reads its data from disk has anything to score on."""
    return bool(experiment.data.evaluation) or experiment.partition.holdout > 0


def has_own_frames(experiment: Experiment) -> bool:
    """Say whether vehicles have frames of their own that are scored."""
    return experiment.partition.holdout > 0 or experiment.evaluation.on_clients


def notes_before(experiment: Experiment) -> Sequence[str]:
    """Return the notes that an experiment file earns by itself."""
    scored = expected_scores(experiment)
    return option_notes(Facts(experiment, scored, own_frames=has_own_frames(experiment)))
