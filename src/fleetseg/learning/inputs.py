"""The inputs of one round of local training besides the model and the samples."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor, nn

from fleetseg import rng
from fleetseg.config import TrainingConfig
from fleetseg.data.sample import Pairs
from fleetseg.learning.feature_distance import FeatureDistance
from fleetseg.learning.hardware import Hardware

Facts = Mapping[str, npt.NDArray[np.float32]]
"""Small arrays by name: facts that the server sends about the fleet, or a client about itself."""


@dataclass(frozen=True)
class RoundContext:
    """Position of local training within a run: everything that its randomness depends on."""

    seed: int
    round: int  # 1-based
    total_rounds: int
    client_id: str

    def generator(self, purpose: str) -> np.random.Generator:
        """Return a generator for one purpose of this client in this round."""
        return rng.generator(self.seed, self.round, self.client_id, purpose)


@dataclass(frozen=True)
class LocalInputs:
    """Settings, hardware, and data from the broadcast or from the client's own state."""

    context: RoundContext
    training: TrainingConfig
    size_hw: tuple[int, int]  # working (height, width)
    hardware: Hardware
    class_weights_C: Tensor | None = None
    pixels_C: tuple[int, ...] = ()  # of each class in the client's labels, at working resolution
    labelled: tuple[int, ...] | None = None  # train ids that the client labels; None = all
    # Models sent beside the received one, by name: each function fills a copy of the received one.
    references: Mapping[str, Callable[[nn.Module], None]] = field(default_factory=dict)
    # Labelled samples of the server that the client carries; each batch has as many of them as of
    # the client's own, behind these. None = it carries none.
    source: Pairs | None = None
    distance: FeatureDistance | None = None  # a term of the loss; None = not used
    survey: Any = None  # result of the supervision's survey of the received model and samples
    facts: Facts = field(default_factory=dict)  # about the fleet
    # By the objective's names; flat, on the CPU, as long as the shared trainable values.
    extras_T: Mapping[str, Tensor] = field(default_factory=dict)
    state: Mapping[str, Tensor] = field(default_factory=dict)  # kept by the objective
    # Moments and loss scale after the client's last round; None = they are not kept.
    optimiser_state: Mapping[str, Tensor] | None = None
