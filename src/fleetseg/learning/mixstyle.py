"""MixStyle: features partly take on the style of another image of the batch.

Zhou, Yang, Qiao, Xiang 2021, Domain Generalization with MixStyle, ICLR, arXiv 2104.02008. An
image's style is the mean and the standard deviation of each channel of its features, in an early
stage (equations 3 to 6):

    sigma_mix (x - mu(x)) / sigma(x) + mu_mix,    mu_mix = lam mu(x) + (1 - lam) mu(x'),

sigma_mix likewise, lam from Beta(alpha, alpha) for each image, x' another image of the batch. As in
the authors' code, gradients do not flow through statistics, and in each step each stage mixes with
some probability. All draws derive from the round's context, by step and stage, so a step's second
pass over its batch mixes like the first.

Shapes: N images, D channels, h and w the features' resolution.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from fleetseg.config import MixStyleConfig
from fleetseg.errors import ModelError
from fleetseg.learning.batches import Batch
from fleetseg.learning.inputs import LocalInputs, RoundContext
from fleetseg.models.segmenter import Segmenter
from fleetseg.models.stages import changed_features, require_stages

_EPS = 1e-6  # added to variances, as in the authors' code


@dataclass
class _Mixer:
    """Mixes the features of a round's steps; `step` is the current one."""

    settings: MixStyleConfig
    context: RoundContext
    step: int = 0

    def numbered(self, batches: Iterable[Batch]) -> Iterator[tuple[int, Batch]]:
        """Number batches from 0, and record the current number."""
        for step, batch in enumerate(batches):
            self.step = step
            yield step, batch

    def change(self, stage: int, features_NDhw: Tensor) -> Tensor:
        """Mix a stage's features, or leave them; a batch of one has nothing to mix with."""
        count = len(features_NDhw)
        draws = self.context.generator(f"mixstyle-{self.step}-{stage}")
        if draws.random() >= self.settings.probability or count == 1:
            return features_NDhw
        shares_N = draws.beta(self.settings.alpha, self.settings.alpha, count)
        others_N = draws.permutation(count)
        device = features_NDhw.device
        return mix_style(
            features_NDhw,
            torch.from_numpy(shares_N.astype(np.float32)).to(device),
            torch.from_numpy(others_N).to(device),
        )


def mix_style(features_NDhw: Tensor, shares_N: Tensor, others_N: Tensor) -> Tensor:
    """Mix each image's statistics, by its share, with those of the image that `others_N` names.

    With a share of 1 the features are returned bit for bit.
    """
    scale_ND11, shift_ND11 = _affine(features_NDhw.detach(), shares_N, others_N)
    dtype = features_NDhw.dtype
    return torch.addcmul(shift_ND11.to(dtype), features_NDhw, scale_ND11.to(dtype))


def _affine(features_NDhw: Tensor, shares_N: Tensor, others_N: Tensor) -> tuple[Tensor, Tensor]:
    """Return the factor and the offset to apply to features, in float32."""
    values_NDhw = features_NDhw.float()
    mean_ND11 = values_NDhw.mean(dim=(2, 3), keepdim=True)
    # No Bessel's correction, so that a one-pixel map has a variance; the ratio is the same.
    variance_ND11 = values_NDhw.var(dim=(2, 3), keepdim=True, correction=0)
    sigma_ND11 = (variance_ND11 + _EPS).sqrt()
    share_N111 = shares_N.view(-1, 1, 1, 1)

    def mixed(own_ND11: Tensor) -> Tensor:
        return share_N111 * own_ND11 + (1 - share_N111) * own_ND11[others_N]

    scale_ND11 = mixed(sigma_ND11) / sigma_ND11
    return scale_ND11, mixed(mean_ND11) - scale_ND11 * mean_ND11


@contextmanager
def mixing(
    model: nn.Module, inputs: LocalInputs, batches: Iterable[Batch]
) -> Iterator[Iterator[tuple[int, Batch]]]:
    """Number batches from 0; if enabled, mix styles while each batch is trained on.

    Raises:
        ModelError: the network lacks the configured stages.
    """
    settings = inputs.training.mixstyle
    if settings.probability == 0:
        yield enumerate(batches)
        return
    if not isinstance(model, Segmenter):
        raise ModelError("MixStyle needs a Segmenter", got=type(model).__name__)
    size_hw = inputs.training.crop or inputs.size_hw
    places = require_stages(model, size_hw, settings.stages)
    mixer = _Mixer(settings, inputs.context)
    with changed_features(model, places, mixer.change):
        yield mixer.numbered(batches)
