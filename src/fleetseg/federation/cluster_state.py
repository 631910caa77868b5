"""Clusters of vehicles with tensors of their own: the server's state, and what is sent.

Either vehicles are divided once, when the first round begins, by what they have reported (LADD:
Shenaj et al. 2023, arXiv 2210.02326), and later ones join the nearest centroid. Or each vehicle
chooses in each round the cluster whose model has the lowest loss on its images (IFCA: Ghosh, Chung,
Yin, Ramchandran 2020, arXiv 2006.04088). A vehicle with nothing to cluster by joins the largest
cluster.

The server keeps each cluster's own tensors. In their place its model, the headline model, has the
mean over clusters, weighted by their numbers of vehicles.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from fleetseg import rng
from fleetseg.config import Experiment, FederationConfig
from fleetseg.federation.checkpoint import ServerState
from fleetseg.federation.cluster_fit import fit, fit_best, nearest
from fleetseg.federation.cluster_parts import BY_LOSS
from fleetseg.federation.cluster_points import Floats, point_of
from fleetseg.federation.messages import Enrolment
from fleetseg.federation.server_optim import SERVER_OPTIMISERS
from fleetseg.federation.sharing import Exchange
from fleetseg.federation.tensors import Layout, ModelState, Part

Vectors = Mapping[str, Tensor]
_OWNER, _OF = "clusters", "of"
_VALUES, _COUNTERS, _CENTROIDS = "values", "counters", "centroids"


def members(state: ServerState) -> dict[str, int]:
    """Return the cluster of each vehicle that has one."""
    table = state.memory.get(_OWNER, {}).get(_OF, {})
    return {client: int(cluster) for client, cluster in table.items()}


def with_members(state: ServerState, of: Mapping[str, int]) -> ServerState:
    """Store the clusters of these vehicles; those of others do not change."""
    table = {client: float(cluster) for client, cluster in {**members(state), **of}.items()}
    ordered = {client: table[client] for client in sorted(table)}
    return replace(state, memory={**state.memory, _OWNER: {_OF: ordered}})


def own_states(state: ServerState) -> tuple[ModelState, ...]:
    """Return the clusters' own tensors, in order."""
    kept = state.clusters
    count = sum(name.endswith(f"/{_VALUES}") for name in kept)
    return tuple(ModelState(kept[f"{k}/{_VALUES}"], kept[f"{k}/{_COUNTERS}"]) for k in range(count))


def with_own(state: ServerState, own: Mapping[int, ModelState]) -> ServerState:
    """Store the tensors of these clusters; those of others do not change."""
    named: dict[str, Tensor] = {}
    for k, tensors in own.items():
        named |= {f"{k}/{_VALUES}": tensors.values_F, f"{k}/{_COUNTERS}": tensors.counters_K}
    return replace(state, clusters={**state.clusters, **named})


def of_cluster(vectors: Vectors, cluster: int | None) -> dict[str, Tensor]:
    """Return a cluster's vectors by name, or with None those that belong to no cluster."""
    if cluster is None:
        return {name: vector for name, vector in vectors.items() if "/" not in name}
    prefix = f"{cluster}/"
    return {n.removeprefix(prefix): v for n, v in vectors.items() if n.startswith(prefix)}


def named_of(vectors: Vectors, cluster: int) -> dict[str, Tensor]:
    """Prefix the names of a cluster's vectors with its number."""
    return {f"{cluster}/{name}": vector for name, vector in vectors.items()}


def with_clusters_placed(
    experiment: Experiment,
    exchange: Exchange,
    state: ServerState,
    enrolled: Mapping[str, Enrolment],
) -> ServerState:
    """Make the clusters before the first round; later, assign newcomers to them.

    A vehicle that has a cluster stays in it, whatever it reports later.
    """
    if not exchange.is_clustered:
        return state
    if not state.clusters:
        state = _first(experiment, exchange, state, enrolled)
    federation = experiment.federation
    if federation.clustered_by == BY_LOSS:
        return state
    before = members(state)
    new = {name: enrolled[name] for name in sorted(enrolled.keys() - before.keys())}
    placed = {name: cluster_of(e, state, federation) for name, e in new.items()}
    return with_members(state, placed) if placed else state


def cluster_of(enrolment: Enrolment, state: ServerState, settings: FederationConfig) -> int:
    """Return a vehicle's cluster: the stored, else the nearest, else (no point) the largest."""
    of = members(state)
    if enrolment.client_id in of:
        return of[enrolment.client_id]
    point_D, centroids_KD = point_of(enrolment, settings.clustered_by), centroids(state)
    if point_D is None or not centroids_KD.size:
        return int(np.bincount([*of.values()]).argmax()) if of else 0
    return nearest(point_D, centroids_KD)


def centroids(state: ServerState) -> Floats:
    """Return the clusters' centroids (K, D); shape (0, 0) if there are none."""
    kept = state.clusters.get(_CENTROIDS)
    return np.zeros((0, 0)) if kept is None else kept.numpy()


def headline(state: ServerState, exchange: Exchange) -> ModelState:
    """Return the server's model with the mean over clusters in place of their own tensors.

    Clusters are weighted by their numbers of vehicles; equally while none has any. Counters are the
    largest.
    """
    own = own_states(state)
    sizes_K = np.bincount([*members(state).values()], minlength=len(own)).astype(np.float64)
    shares_K = sizes_K / sizes_K.sum() if sizes_K.sum() else np.full(len(own), 1 / len(own))
    mean_F = torch.zeros(exchange.clustered.num_floats, dtype=torch.float64)
    for tensors, share in zip(own, shares_K, strict=True):
        mean_F.add_(tensors.values_F.double(), alpha=float(share))
    counters_K = torch.stack([tensors.counters_K for tensors in own]).amax(dim=0)
    model = state.model.clone()
    put(ModelState(mean_F.float(), counters_K), exchange.clustered, model, exchange.server)
    return model


def sent_to(state: ServerState, exchange: Exchange, cluster: int) -> ModelState:
    """Return the model that a cluster's vehicles train from: common and cluster tensors."""
    sent = exchange.sent(state.model).clone()
    put(own_states(state)[cluster], exchange.clustered, sent, exchange.wire)
    return sent


def sent_to_choose(state: ServerState, exchange: Exchange) -> ModelState:
    """Return what vehicles choose from: the first cluster's model, then the others' own tensors."""
    own = own_states(state)
    first = sent_to(state, exchange, 0)
    return ModelState(
        torch.cat([first.values_F, *(tensors.values_F for tensors in own[1:])]),
        torch.cat([first.counters_K, *(tensors.counters_K for tensors in own[1:])]),
    )


def chosen(sent: ModelState, exchange: Exchange, cluster: int) -> ModelState:
    """Return one cluster's model from those that were sent to choose from.

    The first cluster's model is not copied.
    """
    first, own = exchange.wire, exchange.clustered
    model = ModelState(sent.values_F[: first.num_floats], sent.counters_K[: first.num_counters])
    if cluster == 0:
        return model
    floats = first.num_floats + (cluster - 1) * own.num_floats
    counters = first.num_counters + (cluster - 1) * own.num_counters
    tensors = ModelState(
        sent.values_F[floats : floats + own.num_floats],
        sent.counters_K[counters : counters + own.num_counters],
    )
    model = model.clone()
    put(tensors, own, model, first)
    return model


def put(tensors: ModelState, part: Layout, into: ModelState, whole: Layout) -> None:
    """Copy a part into its place in a whole."""
    Part.of(whole, part).put(tensors, into)


def taken(whole_state: ModelState, whole: Layout, part: Layout) -> ModelState:
    """Copy a part out of a whole."""
    state = part.empty()
    Part.of(whole, part).take(whole_state, state)
    return state


def _first(
    experiment: Experiment,
    exchange: Exchange,
    state: ServerState,
    enrolled: Mapping[str, Enrolment],
) -> ServerState:
    """Divide the vehicles present into clusters, and set the clusters' initial tensors."""
    federation = experiment.federation
    start = taken(state.model, exchange.server, exchange.clustered)
    if federation.clustered_by == BY_LOSS:
        count = federation.cluster_models.count
        own = [_spread(start, exchange.clustered, experiment, k) for k in range(count)]
        return _beginning(state, exchange, federation, own)
    points = {name: point_of(enrolled[name], federation.clustered_by) for name in sorted(enrolled)}
    known = {name: point_D for name, point_D in points.items() if point_D is not None}
    if not known:
        return _beginning(state, exchange, federation, [start])
    of_N, centroids_KD = _fitted(np.stack(list(known.values())), experiment)
    state = _beginning(state, exchange, federation, [start] * len(centroids_KD))
    kept = {**state.clusters, _CENTROIDS: torch.from_numpy(centroids_KD)}
    of = dict(zip(known, of_N.tolist(), strict=True))
    return with_members(replace(state, clusters=kept), of)


def _fitted(points_ND: Floats, experiment: Experiment) -> tuple[np.ndarray, Floats]:
    settings = experiment.federation.cluster_models
    if settings.count:
        return fit(points_ND, settings.count, experiment.seed)
    return fit_best(points_ND, settings.max_count, experiment.seed)


def _beginning(
    state: ServerState,
    exchange: Exchange,
    federation: FederationConfig,
    own: Sequence[ModelState],
) -> ServerState:
    first = SERVER_OPTIMISERS[federation.server_optimiser].first
    slots = dict(state.slots)
    for k in range(len(own)):
        slots |= named_of(first(federation, exchange.clustered.num_trainable), k)
    return with_own(replace(state, slots=slots), dict(enumerate(own)))


def _spread(start: ModelState, part: Layout, experiment: Experiment, cluster: int) -> ModelState:
    """Add noise that tells clusters apart: with equal losses, all vehicles would choose the first.

    The noise is on tensors that learn, of `spread` times their root mean square; none if there is
    only one cluster. The authors start from random networks; ours may be pretrained.
    """
    settings = experiment.federation.cluster_models
    if settings.count == 1:
        return start
    state = start.clone()
    for key, tensor in part.views(state).items():
        entry = part.by_key[key]
        if entry.kind == "trainable" and not entry.is_frozen:
            purpose = f"cluster {cluster}: {key}"
            draw = rng.torch_generator(experiment.seed, purpose=purpose)
            rms = float(np.sqrt(np.square(tensor.numpy().astype(np.float64)).mean()))
            noise = torch.randn(tensor.shape, generator=draw)
            tensor.add_(noise, alpha=settings.spread * rms)
    return state
