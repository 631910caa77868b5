"""Server step of FedDyn and FedDC: the mean of the clients' models, shifted by their drift.

Each client i adds up how far its training takes it, h_i <- h_i + (y_i - w). With h the mean of h_i
over all clients, including those that were never asked (zero), the server has

    h <- h + (share of the fleet) mean (y_i - w),    w <- mean y_i + h.

Clients are sent w; the mean itself, w - h, is scored and saved. Acar et al. 2021,
arXiv 2111.04263, Algorithm 1, where h is -h / alpha, and Gao et al. 2022, arXiv 2203.11751.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from fleetseg.config import FederationConfig

Slots = Mapping[str, Tensor]


def first_drift(settings: FederationConfig, num_trainable: int) -> Slots:
    """Make the initial h."""
    return {"drift": torch.zeros(num_trainable)}


def drift_step(
    model_T: Tensor, delta_T: Tensor, slots: Slots, settings: FederationConfig, share: float
) -> tuple[Tensor, Slots]:
    """Take the step."""
    drift_T = torch.add(slots["drift"], delta_T, alpha=share)
    return torch.add(model_T, delta_T, out=delta_T).add_(drift_T), {"drift": drift_T}


def without_drift(model_T: Tensor, slots: Slots) -> Tensor:
    """Return the mean of the clients' models."""
    return model_T - slots["drift"]
