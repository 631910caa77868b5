"""The server's step: how the mean change of a cohort moves the global model."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fleetseg.federation.tensors import Layout, ModelState


def server_step(
    model: ModelState,
    momentum_T: Tensor,
    mean_delta_F: npt.NDArray[np.float32],
    counters_K: Tensor,
    *,
    layout: Layout,
    lr: float,
    momentum: float,
) -> tuple[ModelState, Tensor]:
    """Apply FedAvgM: v <- momentum * v + delta; x <- x + lr * v (trainable values only).

    With lr = 1 and momentum = 0 this is FedAvg (McMahan et al. 2017, Algorithm 1); with momentum it
    is FedAvgM (Hsu, Qi, Brown 2019, arXiv 1909.06335): SGD on the pseudo-gradient -delta.
    Statistics of norm layers become their weighted mean, untouched by lr and momentum; counters are
    taken as given (the largest reported), integers throughout.

    The new model takes over the memory of `mean_delta_F`; the old one stays as it was.
    """
    values_F = torch.from_numpy(mean_delta_F)
    num = layout.num_trainable
    step_T = values_F[:num]
    if momentum > 0:
        step_T = momentum_T = momentum_T.mul(momentum).add_(step_T)
    torch.add(model.values_F[:num], step_T, alpha=lr, out=values_F[:num])
    values_F[num:].add_(model.values_F[num:])
    for entry in layout.floats:
        if entry.is_variance:
            # Rounding of a mean near -x must not leave a variance below zero: honest clients would
            # be refused for it ever after.
            values_F[entry.start : entry.stop].clamp_(min=0)
    return ModelState(values_F, counters_K.clone()), momentum_T
