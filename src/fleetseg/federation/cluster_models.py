"""The clusters' models to score and save, and the cluster of a vehicle or an image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from torch import Tensor

from fleetseg.config import Experiment
from fleetseg.data.sample import Image_HWC
from fleetseg.federation.checkpoint import ServerState
from fleetseg.federation.cluster_fit import nearest
from fleetseg.federation.cluster_points import is_of_images, point_of_image
from fleetseg.federation.cluster_state import centroids, cluster_of, members, put, taken
from fleetseg.federation.messages import Enrolment
from fleetseg.federation.sharing import Exchange
from fleetseg.federation.tensors import ModelState


@dataclass(frozen=True)
class ClusterModels:
    """The published models of all clusters after a round."""

    exchange: Exchange
    experiment: Experiment
    headline: ModelState  # with the mean over clusters in place of their own tensors
    own: tuple[ModelState, ...]  # each cluster's own tensors, as published
    state: ServerState

    def model(self, cluster: int) -> ModelState:
        """Return the whole model of a cluster."""
        model = self.headline.clone()
        put(self.own[cluster], self.exchange.clustered, model, self.exchange.model)
        return model

    def rolled_back(self, headline: ModelState, own: Sequence[ModelState]) -> ClusterModels:
        """Return a copy with earlier models in place of these.

        If the earlier model is older than the clusters, they all take their tensors from it.
        """
        start = taken(headline, self.exchange.model, self.exchange.clustered)
        return replace(self, headline=headline, own=tuple(own) or (start,) * len(self.own))

    def tensors(self) -> list[dict[str, Tensor]]:
        """Return each cluster's own tensors by their state-dict keys."""
        return [self.exchange.clustered.views(own) for own in self.own]

    def cluster_of(self, enrolment: Enrolment) -> int:
        """Return the cluster of a vehicle, even if it has not taken part yet."""
        return cluster_of(enrolment, self.state, self.experiment.federation)

    def groups(self, enrolled: Mapping[str, Enrolment]) -> dict[int | None, list[str]]:
        """Group vehicles by cluster; the key is never None."""
        groups: dict[int | None, list[str]] = {}
        for name, enrolment in enrolled.items():
            groups.setdefault(self.cluster_of(enrolment), []).append(name)
        return groups

    @property
    def sizes_K(self) -> list[int]:
        """The number of vehicles in each cluster."""
        of = [*members(self.state).values()]
        return [int(count) for count in np.bincount(of, minlength=len(self.own))]

    @property
    def members(self) -> Mapping[str, int]:
        """The cluster of each vehicle that has one."""
        return members(self.state)

    @property
    def routes_images(self) -> bool:
        """Whether a single image can be assigned to a cluster, as a vehicle can."""
        return (
            is_of_images(self.experiment.federation.clustered_by) and centroids(self.state).size > 0
        )

    def cluster_of_image(self, image_HWC: Image_HWC) -> int:
        """Return the cluster whose centroid is nearest to an image; labels are not used."""
        point_D = point_of_image(image_HWC, self.experiment)
        return nearest(point_D, centroids(self.state))
