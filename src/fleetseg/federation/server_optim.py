"""The server's step: how the mean change of a cohort moves the global model.

A server optimiser is a `ServerOptimiser` in `SERVER_OPTIMISERS`: the names of what it remembers
and a pure step over the trainable values. Everything else of a model is the same for all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fleetseg.config import FederationConfig
from fleetseg.federation.adaptive import adagrad, adam, first_moments, yogi
from fleetseg.federation.drift import drift_step, first_drift, without_drift
from fleetseg.federation.queue import empty_queue, queue_step
from fleetseg.federation.tensors import Layout, ModelState

Slots = Mapping[str, Tensor]
"""What an optimiser remembers between rounds: float32 vectors by name."""


@dataclass(frozen=True)
class ServerOptimiser:
    """What is remembered before the first round, and the step.

    `first(settings, number of trainable values)` makes the slots.

    `step(model_T, delta_T, slots, settings, share)` returns the new values and the new slots;
    `share` is that of the fleet whose changes `delta_T` is the mean of. The values may take over
    the memory of `delta_T`; the model and the slots stay as they were.

    `scored(model_T, slots)` returns the values that are scored and saved, where those are not the
    ones that clients are sent.

    `means` names slots that are means over all clients of the fleet: see `membership`.
    """

    first: Callable[[FederationConfig, int], Slots]
    step: Callable[[Tensor, Tensor, Slots, FederationConfig, float], tuple[Tensor, Slots]]
    scored: Callable[[Tensor, Slots], Tensor] | None = None
    means: tuple[str, ...] = ()


def _sgd(
    model_T: Tensor, delta_T: Tensor, slots: Slots, settings: FederationConfig, share: float
) -> tuple[Tensor, Slots]:
    """Apply FedAvgM: v <- momentum * v + delta; x <- x + lr * v.

    With lr = 1 and momentum = 0 this is FedAvg (McMahan et al. 2017, Algorithm 1); with momentum it
    is FedAvgM (Hsu, Qi, Brown 2019, arXiv 1909.06335): SGD on the pseudo-gradient -delta.
    """
    step_T = delta_T
    if settings.server_momentum > 0:
        step_T = slots["momentum"].mul(settings.server_momentum).add_(delta_T)
        slots = {"momentum": step_T}
    return torch.add(model_T, step_T, alpha=settings.server_lr, out=delta_T), slots


def _first_velocity(settings: FederationConfig, num_trainable: int) -> Slots:
    return {"momentum": torch.zeros(num_trainable)} if settings.server_momentum > 0 else {}


SERVER_OPTIMISERS: dict[str, ServerOptimiser] = {
    "sgd": ServerOptimiser(_first_velocity, _sgd),
    "adam": ServerOptimiser(first_moments, adam),
    "yogi": ServerOptimiser(first_moments, yogi),
    "adagrad": ServerOptimiser(first_moments, adagrad),
    "drift": ServerOptimiser(first_drift, drift_step, without_drift, means=("drift",)),
    "queue": ServerOptimiser(empty_queue, queue_step),
}


def first_slots(settings: FederationConfig, layout: Layout) -> Slots:
    """Make what the optimiser remembers before the first round."""
    return SERVER_OPTIMISERS[settings.server_optimiser].first(settings, layout.num_trainable)


def server_step(
    model: ModelState,
    slots: Slots,
    mean_delta_F: npt.NDArray[np.float32],
    counters_K: Tensor,
    *,
    layout: Layout,
    settings: FederationConfig,
    share: float = 1.0,
    advance_extra: Callable[[Tensor, Tensor], Tensor] = torch.add,
) -> tuple[ModelState, Slots]:
    """Move the model by the mean change of a cohort; returns it and what the optimiser remembers.

    The optimiser sees trainable values only. Statistics of norm layers become their weighted mean,
    whatever the optimiser; counters are taken as given (the largest reported), integers throughout.
    What a method sends beside the model is advanced by the method's own rule. `share` is that of
    the fleet whose changes these are.

    The new model takes over the memory of `mean_delta_F`; the old one stays as it was.
    """
    values_F = torch.from_numpy(mean_delta_F)
    num = layout.num_trainable
    step = SERVER_OPTIMISERS[settings.server_optimiser].step
    new_T, slots = step(model.values_F[:num], values_F[:num], slots, settings, share)
    values_F[:num].copy_(new_T)  # nothing to do where it took over the memory
    extras = [
        (span, advance_extra(model.values_F[span], values_F[span]))
        for span in layout.spans.values()
    ]
    end = min((span.start for span in layout.spans.values()), default=layout.num_floats)
    values_F[num:end].add_(model.values_F[num:end])
    for span, extra_T in extras:
        values_F[span] = extra_T
    for entry in layout.floats:
        if entry.is_variance:
            # Rounding of a mean near -x must not leave a variance below zero: honest clients would
            # be refused for it ever after.
            values_F[entry.start : entry.stop].clamp_(min=0)
    return ModelState(values_F, counters_K.clone()), slots
