"""Options of scores, personal models, early stopping and trackers that have no effect."""

from __future__ import annotations

from fleetseg.runs.rules.rule import Facts, Rule, only_with


def _owns_nothing(facts: Facts) -> bool:
    experiment = facts.experiment
    return experiment.personal.model == "own" and experiment.federation.sharing == "all"


def _trains_no_own_model(facts: Facts) -> bool:
    return facts.experiment.personal.model not in ("fine-tuned", "ditto")


def _scores_no_clients(facts: Facts) -> bool:
    experiment = facts.experiment
    on_server = bool(experiment.data.evaluation) or experiment.partition.holdout == 0
    return on_server and not experiment.evaluation.on_clients


def _of_norms(name: str) -> Rule:
    """Make the rule for the section of one kind of norms, the server's or the clients'."""

    def is_idle(facts: Facts) -> bool:
        settings = facts.experiment.evaluation
        return name not in (settings.norms, settings.norms_on_clients)

    return Rule((f"evaluation.{name.replace('-', '_')}",), is_idle, f"no norms are '{name}'")


SCORING_RULES: tuple[Rule, ...] = (
    Rule(("evaluation.every", "evaluation.by"),
         lambda f: not f.scored and not f.experiment.evaluation.on_clients,
         "nothing is scored; add [[data.evaluation]] or partition.holdout"),
    Rule(("evaluation.every",),
         lambda f: f.scored and f.experiment.evaluation.every > f.experiment.federation.rounds,
         "the run is shorter, so only its last round is scored"),
    Rule(("personal.model",), lambda f: not f.own_frames,
         "vehicles have no frames of their own to score on; set partition.holdout or "
         "evaluation.on_clients"),
    Rule(("personal.model",), _owns_nothing,
         "federation.sharing = 'all' leaves a vehicle nothing of its own"),
    Rule(("personal.scored",), lambda f: f.experiment.personal.model == "none",
         "personal.model is 'none'"),
    Rule(("personal.epochs", "personal.steps", "personal.lr"), _trains_no_own_model,
         "personal.model is neither 'fine-tuned' nor 'ditto'"),
    only_with("personal.model", "fine-tuned", "personal.learns"),
    Rule(("personal.epochs",), lambda f: f.experiment.personal.steps > 0,
         "personal.steps says how long a vehicle trains its own model"),
    only_with("personal.model", "ditto", "personal.pull"),
    Rule(("evaluation.norms",), lambda f: not f.scored,
         "the server scores nothing; add [[data.evaluation]]"),
    Rule(("evaluation.norms_on_clients",), _scores_no_clients, "no vehicle is scored"),
    *map(_of_norms, ("adapted", "tent", "cotta-like")),
    Rule(("stop.min_gain",), lambda f: f.experiment.stop.patience == 0, "stop.patience is 0"),
    Rule(("tracking.project", "tracking.pictures"), lambda f: not f.experiment.tracking.to,
         "tracking.to is empty"),
    Rule(("tracking.pictures",), lambda f: f.experiment.evaluation.pictures == 0,
         "evaluation.pictures is 0"),
)  # fmt: skip
