"""Parts of a model that stay with the vehicles, and choices that need them on the server."""

from __future__ import annotations

from fleetseg.config import Experiment
from fleetseg.evaluation.norms import NORM_STATISTICS
from fleetseg.federation.sharing import OWN_STATISTICS
from fleetseg.learning.parts import learns
from fleetseg.runs.clashes.clash import Clash

_STAYS = {"body": "head", "head": "body"}  # sharing policy -> part that stays with clients


LEARNS_APART = (
    "a part of the network learns and stays with the vehicles (federation.sharing), so that the "
    "server's sets would be scored with a part that nobody has trained; hold frames of the "
    "vehicles out instead (partition.holdout, and no [[data.evaluation]]), on which each vehicle's "
    "own part is scored"
)


def _learns_apart(experiment: Experiment) -> bool:
    part = _STAYS.get(experiment.federation.sharing)
    return part is not None and learns(part, experiment.training)


def _lacks_statistics(experiment: Experiment) -> bool:
    """Say whether the server has sets to score on but batch norms without statistics."""
    takes_own = NORM_STATISTICS[experiment.evaluation.norms].takes_own
    return bool(experiment.data.evaluation) and takes_own


PARTS: tuple[Clash, ...] = (
    (
        lambda e: (
            e.model.norm == "group"
            and not {"tent", "cotta-like"}.isdisjoint(
                (e.evaluation.norms, e.evaluation.norms_on_clients)
            )
        ),
        "evaluation.norms = 'tent' and 'cotta-like' learn with the statistics of test batches, and "
        "with model.norm = 'group' nothing has any; use 'running'",
    ),
    (
        lambda e: e.model.norm == "group" and e.training.feature_distance.weight > 0,
        "training.feature_distance compares with features that the encoder's batch norms make from "
        "the statistics of ImageNet, and model.norm = 'group' has neither; use 'batch'",
    ),
    (
        lambda e: "banks" in (e.evaluation.norms, e.evaluation.norms_on_clients),
        "evaluation.norms = 'banks' takes banks that are filled of a finished model; score it with "
        "fleetseg evaluate --norms banks, after fleetseg norm-banks",
    ),
    (
        lambda e: e.federation.sharing == "stages" and not e.federation.stages,
        "federation.sharing = 'stages' exchanges the modules that federation.stages names, and "
        "it names none",
    ),
    (lambda e: bool(e.data.evaluation) and _learns_apart(e), LEARNS_APART),
    (
        lambda e: e.personal.model == "ditto" and e.personal.learns != "all",
        "ditto keeps a whole model of each client's own, whose other part would stay as it was in "
        "the client's first round; use personal.learns = 'all'",
    ),
    (
        lambda e: e.federation.statistics == "pooled" and e.federation.aggregator != "mean",
        "federation.statistics = 'pooled' is a mean of second moments; use federation.aggregator = "
        "'mean'",
    ),
    (
        lambda e: e.federation.statistics == "estimated" and e.federation.sharing != "all",
        "federation.statistics = 'estimated' asks vehicles to look through the server's model, and "
        "federation.sharing leaves a part of that with them; use 'all'",
    ),
    (
        lambda e: e.federation.statistics == "estimated" and e.training.freeze_bn_after < 1,
        "training.freeze_bn_after trains with the statistics that are sent, and "
        "federation.statistics = 'estimated' would put others in their place; use 'mean'",
    ),
    (
        lambda e: e.federation.sharing in OWN_STATISTICS and e.training.freeze_bn_after < 1,
        "federation.sharing leaves running statistics with each vehicle, and one that is first "
        "asked past training.freeze_bn_after would train with start values for ever; use 1.0",
    ),
    (
        lambda e: e.federation.sharing == "silobn" and _lacks_statistics(e),
        "silobn leaves running statistics with the vehicles, so that the server has none to score "
        "[[data.evaluation]] with; use evaluation.norms = 'domain' or 'batch'",
    ),
    (
        lambda e: e.federation.sharing == "fedbn" and bool(e.data.evaluation),
        "fedbn leaves norm layers with the vehicles, so that the server has no model to score "
        "[[data.evaluation]] with; score on the vehicles: partition.holdout in its place",
    ),
)
