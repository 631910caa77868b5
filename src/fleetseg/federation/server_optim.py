"""Server optimisers: how the mean change of a cohort moves the global model.

A server optimiser is a `ServerOptimiser` in `SERVER_OPTIMISERS`: its initial state and a pure step
over the trainable values. All optimisers treat the rest of a model in the same way.
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
"""An optimiser's state between rounds: named float32 vectors."""


@dataclass(frozen=True)
class ServerOptimiser:
    """One server optimiser: its initial state, and the step.

    `first(settings, number of trainable values)` makes the slots.

    `step(model_T, delta_T, slots, settings, share)` returns the new values and the new slots;
    `delta_T` is the mean over a `share` of the fleet. The new values may reuse the memory of
    `delta_T`; the model and the slots are not changed.

    `scored(model_T, slots)` returns the values that are scored and saved, if those are not the ones
    that clients are sent.

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
    """Make the optimiser's initial state."""
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
    advance_extra: Callable[[str, Tensor, Tensor], Tensor] = lambda _, extra_T, mean_T: (
        extra_T + mean_T
    ),
) -> tuple[ModelState, Slots]:
    """Move the model by the mean change of a cohort; returns it and the optimiser's new state.

    The optimiser sees trainable values only. With any optimiser, statistics of norm layers become
    their weighted mean; counters are taken as given (the largest reported), integers throughout. A
    method's extras are advanced by its own rule, which is given their names. `share` is the share
    of the fleet whose changes are averaged.

    The new model reuses the memory of `mean_delta_F`; the old model is not changed.
    """
    values_F = torch.from_numpy(mean_delta_F)
    num = layout.num_trainable
    step = SERVER_OPTIMISERS[settings.server_optimiser].step
    new_T, slots = step(model.values_F[:num], values_F[:num], slots, settings, share)
    values_F[:num].copy_(new_T)  # a no-op if the memory was reused
    extras = [
        (span, advance_extra(name, model.values_F[span], values_F[span]))
        for name, span in layout.spans.items()
    ]
    end = min((span.start for span in layout.spans.values()), default=layout.num_floats)
    values_F[num:end].add_(model.values_F[num:end])
    for span, extra_T in extras:
        values_F[span] = extra_T
    for entry in layout.floats:
        if entry.is_variance:
            # Rounding a mean near -x must not leave a negative variance: honest clients would then
            # be refused for ever.
            values_F[entry.start : entry.stop].clamp_(min=0)
    return ModelState(values_F, counters_K.clone()), slots
