"""FedFA: noise in the statistics of features, sized by their variance over the fleet's vehicles.

Zhou, Konukoglu 2023, FedFA: Federated Feature Augmentation, ICLR, arXiv 2301.12995. With mu and
sigma the mean and the deviation of a channel of an image's features x, s(.) the deviation of either
over the images of a batch, and v(.) its variance over vehicles, as the server last computed it:

    alpha (x - mu) / sigma + beta,   alpha ~ N(sigma, (gamma(v(sigma)) + 1) s(sigma)^2),
                                     beta ~ N(mu, (gamma(v(mu)) + 1) s(mu)^2),
    gamma(v) = D r / sum r,          r = 1 / (1 + 1 / v), sums over the D channels.

As in the authors' code (tfzhou/FedFA, `FFALayer`), gamma scales variances, and gradients flow
through mu, sigma and s. What differs:

* v is computed per channel, as the paper says; their server takes one variance over vehicles and
  channels together, so that gamma is always 1.
* A vehicle's mu and sigma are estimated anew each round, over all of its batches, and its earlier
  ones do not enter. Their running values start at 0 and 1 and last over rounds; the server
  overwrites them with the fleet's mean (issue 4 of their repository), and if it did not, they would
  be those of models long gone, and differ by how often a vehicle took part.
* mu and sigma are measured in each step, and not only in those with noise: a vehicle has them after
  a single step.

A batch of one image has no variance over images and gets no noise. Before the first round v is
unknown and 0, which gives a gamma of 1. All draws derive from the round's context, by step and
stage, so a step's second pass over its batch is perturbed like the first, and only the first is
measured. The server's part is in `federation.feature_statistics`.

Shapes: N images, D channels, h and w the features' resolution, S the two statistics, mu and sigma;
vectors of a fleet (suffix V) have mu and then sigma of the D channels of each place in turn.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from fleetseg.config import FedFAConfig, TrainingConfig
from fleetseg.errors import ModelError
from fleetseg.learning.batches import Batch
from fleetseg.learning.inputs import LocalInputs, RoundContext
from fleetseg.models.segmenter import Segmenter
from fleetseg.models.stages import Place, changed_features, require_stages

FEATURES = "feature statistics"
"""The vector of mu and sigma, as means over vehicles; vehicles send how theirs differ."""
SPREAD = "feature variances"
"""The vector of their variances over vehicles, v; it is only sent to vehicles."""
MAX_DIFFERENCE = 128.0
"""Largest difference that a vehicle sends, so that the server can average squares; gamma does not
depend on it, since r is nearly 1 far below."""
_MOMENTUM = 0.99  # share of earlier batches in a vehicle's statistics
_EPS = 1e-6  # added to variances, as in the authors' code


def feature_sizes(
    model: nn.Module, training: TrainingConfig, size_hw: tuple[int, int]
) -> dict[str, int]:
    """Return the length of each part of the vectors, in order; empty if FedFA is off.

    Raises:
        ModelError: the network lacks the configured stages.
    """
    places = _places(model, training, size_hw) if training.fedfa.probability else []
    return {
        f"{number}.{statistic}": place.channels
        for number, place in enumerate(places)
        for statistic in ("mean", "deviation")
    }


@dataclass
class _Measured:
    """A running mean over a round's batches."""

    total_SD: Tensor | float = 0.0
    weight: Tensor | float = 0.0  # of the batches in the total: below 1
    step: int = -1  # the last one measured

    def add(self, step: int, mean_SD: Tensor) -> None:
        """Add a batch, unless its step is measured already; overflow in fp16 is left out."""
        if step == self.step:
            return
        self.step = step
        fits = mean_SD.isfinite().all()
        share = torch.where(fits, 1 - _MOMENTUM, 0.0)
        self.total_SD = (1 - share) * self.total_SD + share * mean_SD.where(fits, 0.0)
        self.weight = (1 - share) * self.weight + share

    def less(self, fleet_SD: Tensor) -> Tensor:
        """Return the mean less the fleet's, on the CPU; zeros if nothing was measured."""
        if float(self.weight) == 0:
            return torch.zeros_like(fleet_SD)
        assert isinstance(self.total_SD, Tensor)
        return (self.total_SD / self.weight).cpu() - fleet_SD


@dataclass
class FeatureNoise:
    """Measures and perturbs the features of a round's steps; `step` is the current one."""

    settings: FedFAConfig
    context: RoundContext
    places: Sequence[Place]
    fleet_SD: Sequence[Tensor]  # of each place: mu and sigma, means over vehicles
    gamma_SD: Sequence[Tensor]
    step: int = 0
    _measured: list[_Measured] = field(init=False)

    def __post_init__(self) -> None:
        self._measured = [_Measured() for _ in self.places]

    @classmethod
    def of(cls, model: nn.Module, inputs: LocalInputs) -> FeatureNoise | None:
        """Prepare a round with the received vectors; None if FedFA is off.

        Raises:
            ModelError: the network lacks the configured stages.
        """
        settings = inputs.training.fedfa
        if settings.probability == 0:
            return None
        places = _places(model, inputs.training, inputs.size_hw)
        channels = [place.channels for place in places]
        fleet_SD, spread_SD = (
            _split(inputs.extras_T.get(name), channels) for name in (FEATURES, SPREAD)
        )
        return cls(settings, inputs.context, places, fleet_SD, [*map(gamma_of, spread_SD)])

    def numbered(self, batches: Iterable[tuple[int, Batch]]) -> Iterator[tuple[int, Batch]]:
        """Pass batches with their numbers on, and record the current number."""
        for step, batch in batches:
            self.step = step
            yield step, batch

    def change(self, stage: int, features_NDhw: Tensor) -> Tensor:
        """Measure a stage's features, and perturb them or leave them."""
        draws = self.context.generator(f"fedfa-{self.step}-{stage}")
        perturbs = draws.random() < self.settings.probability and len(features_NDhw) > 1
        with torch.set_grad_enabled(torch.is_grad_enabled() and perturbs):
            style_SND = style_of(features_NDhw)
        self._measured[stage].add(self.step, style_SND.detach().mean(dim=1))
        if not perturbs:
            return features_NDhw
        device = features_NDhw.device
        noise_SND = torch.from_numpy(draws.standard_normal(style_SND.shape, dtype=np.float32))
        gamma_SD = self.gamma_SD[stage].to(device)
        return perturbed(features_NDhw, style_SND, noise_SND.to(device), gamma_SD)

    def changes(self) -> dict[str, Tensor]:
        """Return how the vehicle's statistics differ from the fleet's, as a vector by its name."""
        pairs = zip(self._measured, self.fleet_SD, strict=True)
        change_V = torch.cat([measured.less(fleet_SD).flatten() for measured, fleet_SD in pairs])
        return {FEATURES: change_V.clamp(-MAX_DIFFERENCE, MAX_DIFFERENCE)}


def style_of(features_NDhw: Tensor) -> Tensor:
    """Return mu and sigma of each channel of each image, in float32: (S, N, D)."""
    values_NDhw = features_NDhw.float()
    # No Bessel's correction, so that a one-pixel map has a variance.
    variance_ND = values_NDhw.var(dim=(2, 3), correction=0)
    return torch.stack([values_NDhw.mean(dim=(2, 3)), (variance_ND + _EPS).sqrt()])


def gamma_of(spread_SD: Tensor) -> Tensor:
    """Return gamma, whose mean over channels is 1, from variances over vehicles."""
    r_SD = 1 / (1 + 1 / (spread_SD + _EPS))
    return r_SD / r_SD.mean(dim=1, keepdim=True)


def perturbed(
    features_NDhw: Tensor, style_SND: Tensor, noise_SND: Tensor, gamma_SD: Tensor
) -> Tensor:
    """Give each image statistics drawn around its own, from standard normal noise.

    Needs two images. With noise of 0 the features are returned bit for bit.
    """
    # Bessel's correction in the variance over images is the authors'.
    deviation_SD = ((gamma_SD + 1) * (style_SND.var(dim=1) + _EPS)).sqrt()
    mean_ND, sigma_ND = style_SND
    shift_ND, grow_ND = noise_SND * deviation_SD[:, None]
    scale_ND = 1 + grow_ND / sigma_ND  # alpha / sigma
    offset_ND = shift_ND - mean_ND * (grow_ND / sigma_ND)  # beta - scale mu
    dtype = features_NDhw.dtype
    scale_ND11, offset_ND11 = scale_ND[..., None, None], offset_ND[..., None, None]
    return torch.addcmul(offset_ND11.to(dtype), features_NDhw, scale_ND11.to(dtype))


@contextmanager
def perturbing(
    model: nn.Module, noise: FeatureNoise | None, batches: Iterable[tuple[int, Batch]]
) -> Iterator[Iterator[tuple[int, Batch]]]:
    """Pass batches with their numbers on; if enabled, perturb while each is trained on."""
    if noise is None:
        yield iter(batches)
        return
    assert isinstance(model, Segmenter)
    with changed_features(model, noise.places, noise.change):
        yield noise.numbered(batches)


def _places(model: nn.Module, training: TrainingConfig, size_hw: tuple[int, int]) -> list[Place]:
    if not isinstance(model, Segmenter):
        raise ModelError("FedFA needs a Segmenter", got=type(model).__name__)
    return require_stages(model, training.crop or size_hw, training.fedfa.stages)


def _split(vector_V: Tensor | None, channels: Sequence[int]) -> list[Tensor]:
    """Split a vector into mu and sigma of each place; one that was not sent is zero."""
    if vector_V is None:
        vector_V = torch.zeros(2 * sum(channels))
    parts = vector_V.split_with_sizes([2 * count for count in channels])
    return [part.view(2, -1) for part in parts]
