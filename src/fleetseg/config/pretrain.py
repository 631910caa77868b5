"""Pre-training on the server's own data, and the safety checks of self-training."""

from __future__ import annotations

from pydantic import Field

from fleetseg.config.data import SourceConfig
from fleetseg.config.section import Section


class PretrainConfig(Section):
    """Pre-training on labelled sources of the server; the fleet starts from the resulting model.

    All else (loss, augmentation, optimiser, schedule) is as in `training` for labels.
    """

    sources: tuple[SourceConfig, ...] = ()  # empty = no pre-training
    rounds: int = Field(default=10, ge=1)  # each ends with a checkpoint
    epochs: int = Field(default=1, ge=1)  # of all sources together, in each round
    steps: int = Field(default=0, ge=0)  # > 0: exactly this many a round, overrides epochs
    lr: float = Field(default=0.0, ge=0)  # 0 = training.lr
    batch_size: int = Field(default=0, ge=0)  # 0 = training.batch_size
    # Probability that a source image, each time it is trained on, takes on a vehicle's style, as
    # defined by training.style. 0 = never.
    style_probability: float = Field(default=0.0, ge=0, le=1)


class SafetyConfig(Section):
    """Safety checks of self-training: against the first model, on the server's labelled sets."""

    # Largest drop in mIoU (of 1) from the first model's; the newest model within it is published.
    max_loss: float = Field(default=0.02, ge=0, le=1)
    # The run ends where the entropy of predicted classes falls below this share of what it was.
    collapse: float = Field(default=0.5, ge=0, le=1)  # 0 = off
