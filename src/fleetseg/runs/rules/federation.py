"""Options of the server and of simulated faults that have no effect."""

from __future__ import annotations

from fleetseg.federation.sharing import OWN_STATISTICS
from fleetseg.runs.rules.rule import Facts, Rule, only_with


def _asks_all(facts: Facts) -> bool:
    cohort = facts.experiment.federation.cohort
    return isinstance(cohort, float) and cohort == 1.0


def _adaptive(facts: Facts) -> bool:
    return facts.experiment.federation.server_optimiser in ("adam", "yogi", "adagrad")


def _to_a_mean(facts: Facts) -> bool:
    return facts.experiment.federation.server_optimiser in ("drift", "queue")


def _count_is_given(facts: Facts) -> bool:
    return facts.experiment.federation.cluster_models.count > 0


def _begins_alike(facts: Facts) -> bool:
    federation = facts.experiment.federation
    return federation.clustered_by != "loss" or federation.cluster_models.count == 1


def _none_slow(facts: Facts) -> bool:
    return facts.experiment.federation.faults.stragglers == 0


def _calm(facts: Facts) -> bool:
    return _none_slow(facts) and facts.experiment.federation.faults.dropout == 0


FEDERATION_RULES: tuple[Rule, ...] = (
    Rule(("federation.over_selection", "federation.sampler"), _asks_all,
         "federation.cohort = 1.0 asks the whole fleet already"),
    Rule(("federation.server_momentum",), _adaptive,
         "federation.server_optimiser has federation.adaptive.beta1 instead"),
    Rule(("federation.adaptive",), lambda f: not _adaptive(f),
         "federation.server_optimiser is not 'adam', 'yogi' or 'adagrad'"),
    Rule(("federation.server_lr", "federation.server_momentum"), _to_a_mean,
         "federation.server_optimiser = 'drift' and 'queue' go to a mean of models, not by steps"),
    only_with("federation.server_optimiser", "queue", "federation.queue"),
    only_with("federation.aggregator", "extrapolated", "federation.extrapolated"),
    only_with("federation.publishing", "ema", "federation.ema"),
    only_with("federation.publishing", "swa", "federation.swa"),
    only_with("federation.weights", "fedgau", "federation.fedgau"),
    only_with("federation.weights", "feddg-ga", "federation.gap"),
    only_with("federation.aggregator", "q-fedavg", "federation.qffl"),
    only_with("federation.sampler", "clusters", "federation.clusters"),
    Rule(("federation.cluster_models",), lambda f: f.experiment.federation.clustered_by == "none",
         "federation.clustered_by is 'none'"),
    Rule(("federation.cluster_models.max_count",), _count_is_given,
         "federation.cluster_models.count says how many clusters there are"),
    Rule(("federation.cluster_models.spread",), _begins_alike,
         "clusters that are not chosen by loss, or one alone, begin with the same values"),
    only_with("federation.cluster_models.tensors", "stages", "federation.cluster_models.stages"),
    only_with("federation.sampler", "power of choice", "federation.power_of_choice"),
    only_with("federation.sampler", "oort", "federation.oort"),
    Rule(("federation.oort.slow_penalty", "federation.oort.pace", "federation.oort.pace_step",
          "federation.oort.window"), _none_slow,
         "there are no simulated stragglers, and real times are no part of a result"),
    Rule(("federation.statistics",), lambda f: f.experiment.federation.sharing in OWN_STATISTICS,
         "federation.sharing leaves running statistics with the vehicles"),
    only_with("federation.sharing", "stages", "federation.stages"),
    Rule(("federation.deadline_s",), lambda f: _calm(f) and not f.on_a_fleet,
         "clients on this machine are waited for; it counts with simulated faults or a fleet"),
    Rule(("federation.faults.slowdown",), _none_slow, "there are no stragglers"),
    Rule(("federation.faults.seconds_per_image", "federation.faults.megabytes_per_s"),
         _calm, "there are neither drop-outs nor stragglers"),
)  # fmt: skip
