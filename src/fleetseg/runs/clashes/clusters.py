"""Clusters of vehicles with tensors of their own, and choices that need one model for all."""

from __future__ import annotations

from fleetseg.config import Experiment
from fleetseg.data.styles import STYLES
from fleetseg.federation.cluster_parts import BY_LOSS
from fleetseg.federation.cluster_points import CLASS_MIX
from fleetseg.learning.objectives import OBJECTIVES
from fleetseg.learning.supervision import SUPERVISION
from fleetseg.runs.clashes.clash import Clash
from fleetseg.runs.clashes.server import sends_parts


def _clustered(experiment: Experiment) -> bool:
    return experiment.federation.clustered_by != "none"


def _by_loss(experiment: Experiment) -> bool:
    return experiment.federation.clustered_by == BY_LOSS


def _by_labels(experiment: Experiment) -> bool:
    return experiment.federation.clustered_by in (CLASS_MIX, BY_LOSS)


def _needs_no_labels(experiment: Experiment) -> bool:
    return not SUPERVISION[experiment.training.supervision].needs_labels


def _goes_by_no_style(experiment: Experiment) -> bool:
    return experiment.federation.clustered_by == STYLES and experiment.training.style.kind == "none"


def _is_of_one_model(experiment: Experiment) -> bool:
    objective = OBJECTIVES[experiment.training.objective]
    return bool(objective.extras or objective.told) or experiment.training.objective == "dyn"


CLUSTERS: tuple[Clash, ...] = (
    (
        lambda e: _clustered(e) and _is_of_one_model(e),
        "scaffold, dyn, drift, client momentum and mimelite go by one vector for the whole fleet's "
        "model, and federation.clustered_by makes several models; use another "
        "training.objective, or 'none'",
    ),
    (
        lambda e: _clustered(e) and e.training.fedfa.probability > 0,
        "training.fedfa goes by how features of one model differ between vehicles, and "
        "federation.clustered_by makes several models; use training.fedfa.probability = 0, or "
        "'none'",
    ),
    (
        lambda e: _clustered(e) and e.federation.aggregator != "mean",
        "federation.clustered_by takes the changes of some tensors over the fleet and of others "
        "within clusters, and aggregators other than 'mean' go by whole changes; use "
        "federation.aggregator = 'mean'",
    ),
    (
        lambda e: _clustered(e) and e.federation.downlink.strip() != "none",
        "federation.downlink follows one model that all vehicles hold, and with "
        "federation.clustered_by each cluster has another; use 'none'",
    ),
    (
        lambda e: _clustered(e) and e.federation.statistics == "estimated",
        "federation.statistics = 'estimated' asks all vehicles to look through one model, and with "
        "federation.clustered_by each cluster has another; use 'mean' or 'pooled'",
    ),
    (
        lambda e: _clustered(e) and e.model.adapter_rank > 0,
        "model.adapter_rank merges what has learnt into the saved model, and clusters' own tensors "
        "are saved beside it; use model.adapter_rank = 0 with federation.clustered_by",
    ),
    (
        lambda e: _by_labels(e) and _needs_no_labels(e),
        "federation.clustered_by = 'class mix' and 'loss' go by labels, and training.supervision "
        "takes vehicles that have none; use a fact of their images",
    ),
    (
        _goes_by_no_style,
        "federation.clustered_by = 'styles' goes by what vehicles tell of their style, and "
        "training.style.kind = 'none' has them tell nothing; use 'lab' or 'fda', with "
        "training.style.probability = 0 if no image is to take on another's",
    ),
    (
        lambda e: _by_loss(e) and e.federation.cluster_models.count == 0,
        "federation.clustered_by = 'loss' sends every vehicle the model of each cluster from the "
        "first round on; say how many: federation.cluster_models.count",
    ),
    (
        lambda e: _by_loss(e) and sends_parts(e),
        "topk and powersgd add what they leave out of an update to the next one, which with "
        "federation.clustered_by = 'loss' may be another cluster's; use a codec that does not, or "
        "'none'",
    ),
    (
        lambda e: _by_loss(e) and e.training.optimiser_state == "kept",
        "training.optimiser_state = 'kept' goes on with the moments of a vehicle's last model, "
        "which with federation.clustered_by = 'loss' may be another cluster's; use 'reset'",
    ),
    (
        lambda e: _by_loss(e) and e.training.objective in ("fedspeed", "moon"),
        "fedspeed and moon go by a vehicle's last model, which with federation.clustered_by = "
        "'loss' may be another cluster's; use another training.objective",
    ),
    (
        lambda e: (
            _clustered(e)
            and e.federation.cluster_models.tensors == "stages"
            and not e.federation.cluster_models.stages
        ),
        "federation.cluster_models.tensors = 'stages' are those of the modules that "
        "federation.cluster_models.stages names, and it names none",
    ),
)
