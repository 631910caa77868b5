"""Aggregation in a round where clusters of vehicles have tensors of their own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fleetseg.errors import UpdateRejected
from fleetseg.federation.aggregate import FixedPointMean, Opening
from fleetseg.federation.cluster_state import chosen
from fleetseg.federation.known import CLUSTER
from fleetseg.federation.messages import Broadcast, Update
from fleetseg.federation.sharing import Exchange
from fleetseg.federation.tensors import Layout, ModelState, Part

Floats_F = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Folded:
    """The aggregate of the vehicles' changes, for some of the tensors."""

    change_F: Floats_F
    counters_K: Tensor


@dataclass
class RoundClusters:
    """The cluster of each update, and the means of the common and the cluster-specific parts.

    Where vehicles choose their cluster, their choice is accepted if that cluster exists. The update
    passes the same checks as any other.
    """

    exchange: Exchange
    sent: Mapping[str, Broadcast]
    count: int
    members: Mapping[str, int] | None  # of each client asked; None = each reports its choice
    of: dict[str, int] = field(default_factory=dict)  # clusters of the vehicles with updates in
    _bases: dict[int, ModelState] = field(default_factory=dict)  # models that were sent for choice

    def open(self, opening: Opening) -> None:
        """Start a round."""
        exchange = self.exchange
        self._opening = opening
        self._common = _PartMean(exchange.wire, exchange.common, opening.weights)
        self._own: dict[int, _PartMean] = {}

    def cluster_of(self, update: Update) -> int:
        """Return the cluster of an update.

        Raises:
            UpdateRejected: that cluster does not exist.
        """
        if self.members is not None:
            return self.members[update.client_id]
        measures = update.measures
        said = measures.get(CLUSTER) if isinstance(measures, Mapping) else None
        if type(said) is not float or said not in range(self.count):
            raise UpdateRejected(
                "cluster", "no such cluster", got=repr(said)[:40], expected=f"0..{self.count - 1}"
            )
        return int(said)

    def base(self, client: str, cluster: int) -> ModelState:
        """Return the model that a vehicle trained from."""
        if self.members is not None:
            return self.exchange.shared_of(self.sent[client].state)  # without the teacher
        if cluster not in self._bases:
            self._bases[cluster] = chosen(self.sent[client].state, self.exchange, cluster)
        return self._bases[cluster]

    def add(self, update: Update, change_F: Floats_F, cluster: int) -> None:
        """Add a validated change."""
        if cluster not in self._own:
            exchange, weights = self.exchange, self._weights_of(cluster)
            self._own[cluster] = _PartMean(exchange.wire, exchange.clustered, weights)
        self._common.add(update, change_F)
        self._own[cluster].add(update, change_F)
        self.of[update.client_id] = cluster

    def take(self) -> tuple[Folded, dict[int, Folded]]:
        """Return the common aggregate, and that of each cluster with an update; call once."""
        own = {k: mean.take() for k, mean in sorted(self._own.items())}
        return self._common.take(), own

    def _weights_of(self, cluster: int) -> dict[str, int]:
        """Return the weights of a cluster's members; of all clients if members are not known."""
        weights, members = self._opening.weights, self.members
        if members is None:
            return dict(weights)
        return {client: weight for client, weight in weights.items() if members[client] == cluster}


class _PartMean:
    """The weighted mean of one part of the changes, and the maximum of its counters."""

    def __init__(self, whole: Layout, part: Layout, weights: Mapping[str, int]) -> None:
        self._runs = Part.of(whole, part)
        self._mean = FixedPointMean(part.num_floats, weights) if part.floats else None
        self._change_F = np.empty(part.num_floats, dtype=np.float32)
        self._counters_K = torch.empty(part.num_counters, dtype=torch.int64)
        self._largest_K: Tensor | None = None

    def add(self, update: Update, change_F: Floats_F) -> None:
        for there, here in self._runs.floats:
            self._change_F[here] = change_F[there]
        for there, here in self._runs.counters:
            self._counters_K[here] = update.change.counters_K[there]
        if self._mean is not None:
            self._mean.add(update.client_id, self._change_F)
        seen_K = self._largest_K
        self._largest_K = (
            self._counters_K.clone() if seen_K is None else torch.maximum(seen_K, self._counters_K)
        )

    def take(self) -> Folded:
        assert self._largest_K is not None
        change_F = self._change_F if self._mean is None else self._mean.finish()
        return Folded(change_F, self._largest_K)
