"""Optimiser steps, and the loss scale that keeps fp16 gradients in range."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

_KEY = "loss_scale"
_START = 2.0**12  # a weight's gradient may be 16 before it overflows
_LARGEST = 2.0**24
_GROWTH_STEPS = 2000  # without overflow until the scale doubles, as in torch.amp.GradScaler


Correct = Callable[[], None]
"""Changes gradients between the backward pass and clipping."""


@dataclass
class LossScale:
    """The factor by which a loss is multiplied before its backward pass.

    torch.amp.GradScaler starts at 65536, adapts by overflowing, and drops the batch of each
    overflow. A round can be as short as one step, so this scale starts lower, and the backward pass
    of a batch that overflows is repeated at half the scale: no step is lost. The forward pass is
    not repeated, so norm layers see each batch once. All scales are powers of two, so they leave no
    trace in the gradients.
    """

    value: float = _START
    good_steps: int = 0  # since the last change
    skipped_steps: int = 0  # because no scale gave finite gradients
    enabled: bool = True

    @classmethod
    def of(cls, precision: str, kept: Mapping[str, Tensor]) -> LossScale:
        """Restore the scale that `state` stored in a client's kept tensors, or start anew."""
        if precision != "fp16" or _KEY not in kept:
            return cls(enabled=precision == "fp16")
        value, good_steps = kept[_KEY].tolist()
        return cls(value, int(good_steps))

    def state(self) -> dict[str, Tensor]:
        """Return what a client keeps of the scale between rounds."""
        if not self.enabled:
            return {}
        return {_KEY: torch.tensor([self.value, float(self.good_steps)])}

    def backward(
        self,
        loss: Tensor,
        parameters: Sequence[Tensor],
        clip_norm: float,
        correct: Correct | None = None,
    ) -> bool:
        """Compute gradients, unscaled, corrected and clipped; false if not finite at any scale."""
        before = self.value
        while not self._try(loss, parameters, clip_norm, correct):
            if self.value <= 1 or not math.isfinite(float(loss.detach())):
                self.value = before  # the scale was not the cause
                self.skipped_steps += 1
                return False
            self.value, self.good_steps = self.value / 2, 0
        self._count_good_step()
        return True

    def _try(
        self,
        loss: Tensor,
        parameters: Sequence[Tensor],
        clip_norm: float,
        correct: Correct | None,
    ) -> bool:
        for parameter in parameters:
            parameter.grad = None
        (loss * self.value).backward(retain_graph=True)  # type: ignore[no-untyped-call]
        torch._foreach_mul_([p.grad for p in parameters if p.grad is not None], 1 / self.value)
        if correct is not None:
            correct()
        norm = nn.utils.clip_grad_norm_(parameters, clip_norm or math.inf)
        return math.isfinite(float(norm))

    def _count_good_step(self) -> None:
        self.good_steps += 1
        if self.good_steps >= _GROWTH_STEPS:
            self.value, self.good_steps = min(2 * self.value, _LARGEST), 0


def take_step(
    model: nn.Module,
    loss: Tensor,
    optimiser: torch.optim.Optimizer,
    scale: LossScale,
    clip_norm: float,
    correct: Correct | None = None,
) -> bool:
    """Take one optimiser step; false if the fp16 gradients are finite at no scale."""
    if scale.enabled:
        if not scale.backward(loss, list(model.parameters()), clip_norm, correct):
            return False
    else:
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        finish_gradients(model, clip_norm, correct)
    optimiser.step()
    return True


def fill_gradients(
    model: nn.Module, loss: Tensor, optimiser: torch.optim.Optimizer, scale: LossScale
) -> bool:
    """Compute a loss's own gradients, unscaled; false if they are finite at no fp16 scale."""
    if scale.enabled:
        return scale.backward(loss, list(model.parameters()), clip_norm=0)
    optimiser.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    return True


def finish_gradients(model: nn.Module, clip_norm: float, correct: Correct | None) -> None:
    """Correct unscaled gradients and clip them."""
    if correct is not None:
        correct()
    if clip_norm > 0:
        nn.utils.clip_grad_norm_(model.parameters(), clip_norm)
