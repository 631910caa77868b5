"""HyperFLAW's queue: the next global model is the mean of this round's and the last few models.

Rizzoli et al. 2025, When Cars meet Drones, arXiv 2403.13762, and its code: with y the mean of the
clients' models, and w_1 ... w_q the last q global models, including the one that was sent,

    w <- (y + w_1 + ... + w_q) / (q + 1);

in the first rounds with as many as there are. The result is the server's own model, and so what is
sent; the queue holds such means.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from fleetseg.config import FederationConfig

Slots = Mapping[str, Tensor]


def empty_queue(settings: FederationConfig, num_trainable: int) -> Slots:
    """Make the initial slots: none."""
    return {}


def queue_step(
    model_T: Tensor, delta_T: Tensor, slots: Slots, settings: FederationConfig, share: float
) -> tuple[Tensor, Slots]:
    """Take the step; the slots are the queue, the oldest model first."""
    past = [slots[f"past {k}"] for k in range(len(slots))]
    queue = [*past, model_T.clone()][-settings.queue.length :]
    mean_T = torch.add(model_T, delta_T, out=delta_T)
    for past_T in queue:
        mean_T.add_(past_T)
    return mean_T.div_(len(queue) + 1), {f"past {k}": past_T for k, past_T in enumerate(queue)}
