"""The server's part of a clustered round: what vehicles are sent, and a step per cluster."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from torch import Tensor

from fleetseg.config import FederationConfig
from fleetseg.federation.checkpoint import ServerState
from fleetseg.federation.cluster_fold import Folded, RoundClusters
from fleetseg.federation.cluster_parts import BY_LOSS
from fleetseg.federation.cluster_references import cluster_references
from fleetseg.federation.cluster_state import (
    headline,
    members,
    named_of,
    of_cluster,
    own_states,
    put,
    sent_to,
    sent_to_choose,
    taken,
    with_members,
    with_own,
)
from fleetseg.federation.collect import RoundCollector
from fleetseg.federation.counted import to_each
from fleetseg.federation.messages import Broadcast
from fleetseg.federation.publishing import Publication
from fleetseg.federation.records import RoundRecord
from fleetseg.federation.server_optim import Slots, server_step
from fleetseg.federation.sharing import Exchange
from fleetseg.federation.statistics import STATISTICS
from fleetseg.federation.tensors import Layout, ModelState
from fleetseg.learning.inputs import Facts


def cluster_asks(
    state: ServerState,
    exchange: Exchange,
    settings: FederationConfig,
    clients: Collection[str],
    records: Sequence[RoundRecord],
    facts: Facts,
) -> dict[str, Broadcast]:
    """Make each client's broadcast: its cluster's model, or all models if clients choose.

    A cluster's model is sent with its reference models, such as the cluster's teacher.
    """
    if settings.clustered_by == BY_LOSS:
        sent = sent_to_choose(state, exchange)
        choice = Broadcast(state.round + 1, sent, facts, lineage=state.lineage)
        return to_each(choice, clients, records)
    of = members(state)
    asks: dict[str, Broadcast] = {}
    for k in sorted({of[client] for client in clients}):
        beside = cluster_references(state, exchange, k)
        sent = exchange.with_references(sent_to(state, exchange, k), beside)
        broadcast = Broadcast(state.round + 1, sent, facts, lineage=state.lineage)
        asks |= to_each(broadcast, [c for c in clients if of[c] == k], records)
    return {client: asks[client] for client in clients}


def round_clusters(
    state: ServerState,
    exchange: Exchange,
    settings: FederationConfig,
    asks: Mapping[str, Broadcast],
) -> RoundClusters:
    """Make the aggregation of a clustered round in which clients were sent `asks`."""
    of = None if settings.clustered_by == BY_LOSS else members(state)
    return RoundClusters(exchange, asks, len(own_states(state)), of)


def cluster_step(
    state: ServerState, collector: RoundCollector, exchange: Exchange, settings: FederationConfig
) -> ServerState:
    """Update the common tensors by all updates, and each cluster's own by its members' updates.

    A cluster without an update keeps its tensors and their optimiser state.
    """
    common, own = collector.take_clusters()
    server, wire = exchange.server, exchange.wire
    before = taken(exchange.sent(state.model), wire, exchange.common)
    slots_before = of_cluster(state.slots, None)
    moved, slots = _moved(before, slots_before, common, exchange.common, settings)
    model = state.model.clone()
    put(moved, exchange.common, model, server)
    all_slots = {**state.slots, **slots}
    states, new = own_states(state), {}
    for k, folded in own.items():
        slots_before = of_cluster(state.slots, k)
        new[k], slots = _moved(states[k], slots_before, folded, exchange.clustered, settings)
        all_slots |= named_of(slots, k)
    state = with_own(replace(state, model=model, slots=all_slots), new)
    if settings.clustered_by == BY_LOSS:
        state = with_members(state, collector.clusters_of)
    return replace(state, model=headline(state, exchange))


def _moved(
    model: ModelState, slots: Slots, folded: Folded, layout: Layout, settings: FederationConfig
) -> tuple[ModelState, Slots]:
    STATISTICS[settings.statistics].finish(folded.change_F, layout)
    change_F, counters_K = folded.change_F, folded.counters_K
    return server_step(model, slots, change_F, counters_K, layout=layout, settings=settings)


def remember_clusters(
    state: ServerState, publication: Publication, settings: FederationConfig
) -> dict[str, Tensor]:
    """Return the publishing state of each cluster's own tensors after a round."""
    remembered: dict[str, Tensor] = {}
    for k, own in enumerate(own_states(state)):
        before = of_cluster(state.published, k)
        remembered |= named_of(publication.remember(before, own, state.round + 1, settings), k)
    return remembered
