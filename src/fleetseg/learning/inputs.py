"""What one round of local training depends on, besides the model and the samples."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor, nn

from fleetseg import rng
from fleetseg.config import TrainingConfig
from fleetseg.learning.hardware import Hardware

Facts = Mapping[str, npt.NDArray[np.float32]]
"""Small arrays by name: what the server tells of the fleet, or a client of itself."""


@dataclass(frozen=True)
class RoundContext:
    """Where in a run a piece of local training stands: all that its randomness depends on."""

    seed: int
    round: int  # 1-based
    total_rounds: int
    client_id: str

    def generator(self, purpose: str) -> np.random.Generator:
        """Random numbers for one purpose of this client in this round."""
        return rng.generator(self.seed, self.round, self.client_id, purpose)


@dataclass(frozen=True)
class LocalInputs:
    """Settings, machine, and what came with the broadcast or out of the client's own state."""

    context: RoundContext
    training: TrainingConfig
    size_hw: tuple[int, int]  # working (height, width)
    hardware: Hardware
    class_weights_C: Tensor | None = None
    pixels_C: tuple[int, ...] = ()  # of each class in the client's labels, at working resolution
    labelled: tuple[int, ...] | None = None  # train ids that its labels name; None = all do
    # Models that came beside the received one: each fills a copy of that one, by name.
    references: Mapping[str, Callable[[nn.Module], None]] = field(default_factory=dict)
    survey: Any = None  # what its supervision made of the received model and all samples
    facts: Facts = field(default_factory=dict)  # of the fleet
    # As long as the shared trainable values, flat and on the CPU; by the objective's names.
    extras_T: Mapping[str, Tensor] = field(default_factory=dict)
    state: Mapping[str, Tensor] = field(default_factory=dict)  # what the objective left last time
    # Moments and loss scale of the client's last round; None = they are not kept.
    optimiser_state: Mapping[str, Tensor] | None = None
