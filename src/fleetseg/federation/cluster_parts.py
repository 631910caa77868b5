"""The tensors of a model that each cluster of vehicles has of its own.

Like a sharing policy, a choice is a predicate over `Entry`, in `CLUSTER_PARTS`: it selects which
exchanged tensors are averaged within a cluster; all others are averaged over the whole fleet.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from fleetseg.config import ClusterModelsConfig, FederationConfig
from fleetseg.errors import ModelError
from fleetseg.federation.sharing import Exchange, is_within, require_stages
from fleetseg.federation.tensors import Entry

ENCODERS = ("encoder", "backbone", "detail", "semantic", "context", "downsample", "features")
"""Outermost modules of encoders, in smp, torchvision, BiSeNetV2 and Fast-SCNN."""
BY_LOSS = "loss"
"""IFCA's clustering, in which clients choose."""


def in_encoder(entry: Entry) -> bool:
    """Return whether a tensor belongs to the network's encoder, by the names of its modules."""
    return any(is_within(entry.key, name) for name in ENCODERS)


CLUSTER_PARTS: dict[str, Callable[[Entry, ClusterModelsConfig], bool]] = {
    "all": lambda entry, settings: True,
    "head": lambda entry, settings: entry.in_head,
    "norms": lambda entry, settings: entry.in_norm,
    "encoder": lambda entry, settings: in_encoder(entry),
    "decoder": lambda entry, settings: not in_encoder(entry),  # and the head
    "stages": lambda entry, settings: any(is_within(entry.key, s) for s in settings.stages),
}


def with_clusters(exchange: Exchange, federation: FederationConfig) -> Exchange:
    """Mark the exchanged tensors that clusters have of their own, if there are clusters.

    Raises:
        ModelError: no tensor of this network is chosen, or, for encoder and decoder, all are.
        ConfigError: a stage that the network does not have.
    """
    if federation.clustered_by == "none":
        return exchange
    assert exchange.wire == exchange.shared  # objectives with vectors of their own are refused
    settings = federation.cluster_models
    require_stages(exchange.model, settings.stages, "federation.cluster_models.stages")
    keep = CLUSTER_PARTS[settings.tensors]
    clustered = exchange.shared.only(lambda entry: keep(entry, settings))
    whole = clustered.num_floats == exchange.shared.num_floats
    if not clustered.floats or (whole and settings.tensors in ("encoder", "decoder")):
        raise ModelError(
            f"clusters would have {'all' if clustered.floats else 'none'} of this network's "
            "exchanged tensors as their own",
            where=f"federation.cluster_models.tensors = '{settings.tensors}'",
            cure="Name its modules: set federation.cluster_models.tensors = 'stages', and stages",
        )
    copies = settings.count - 1 if federation.clustered_by == BY_LOSS else 0
    return replace(exchange, clustered=clustered, copies=copies)
