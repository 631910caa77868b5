"""Reference models sent with the clusters' models: each cluster has its own teacher.

A teacher is computed from earlier models value by value. So the tensors common to the fleet have
one teacher, and a cluster's own tensors have one per cluster; together they equal the teacher that
the cluster's whole models would give. All clusters start from the same model, so there is one
"first" model.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from fleetseg.config import Experiment
from fleetseg.federation.checkpoint import ServerState
from fleetseg.federation.cluster_state import named_of, of_cluster, own_states, taken
from fleetseg.federation.references import FIRST, References, advance_references
from fleetseg.federation.sharing import Exchange
from fleetseg.federation.tensors import Part


def advance_cluster_references(
    state: ServerState, exchange: Exchange, experiment: Experiment
) -> References:
    """Return the reference models to send in the next round.

    A cluster's references advance in every round, whether its vehicles are asked or not, so that
    they depend on its earlier models alone.
    """
    before, sent = state.references, exchange.sent(state.model)
    after: dict[str, Tensor] = {}
    if FIRST in exchange.references:
        after[FIRST] = before.get(FIRST, sent.values_F.clone())
    advance = partial(
        advance_references,
        names=[name for name in exchange.references if name != FIRST],
        round_=state.round + 1,
        settings=experiment.training.self_training,
        total_rounds=experiment.federation.rounds,
    )
    common_F = taken(sent, exchange.wire, exchange.common).values_F
    after |= advance(of_cluster(before, None), sent_F=common_F)
    for k, own in enumerate(own_states(state)):
        after |= named_of(advance(of_cluster(before, k), sent_F=own.values_F), k)
    return after


def cluster_references(state: ServerState, exchange: Exchange, cluster: int) -> References:
    """Return the whole reference models that are sent to a cluster."""
    common, own = of_cluster(state.references, None), of_cluster(state.references, cluster)
    whole: dict[str, Tensor] = {}
    for name in exchange.references:
        if name == FIRST:
            whole[name] = common[name]
            continue
        joined_F = torch.empty(exchange.wire.num_floats)
        for part, part_F in ((exchange.common, common[name]), (exchange.clustered, own[name])):
            for there, here in Part.of(exchange.wire, part).floats:
                joined_F[there] = part_F[here]
        whole[name] = joined_F
    return whole
