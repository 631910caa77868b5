"""What comes before the fleet: a model that the server trains on data of its own, and its guard."""

from __future__ import annotations

from pydantic import Field

from fleetseg.config.data import SourceConfig
from fleetseg.config.section import Section


class PretrainConfig(Section):
    """The server trains on labelled sources of its own, and the fleet goes on from there.

    All else (loss, augmentation, optimiser, schedule) is as `training` has it for labels.
    """

    sources: tuple[SourceConfig, ...] = ()  # empty = there is no such stage
    rounds: int = Field(default=10, ge=1)  # stretches, each with a checkpoint at its end
    epochs: int = Field(default=1, ge=1)  # of all sources together, in each stretch
    steps: int = Field(default=0, ge=0)  # > 0: exactly so many in each stretch, overrides epochs
    lr: float = Field(default=0.0, ge=0)  # 0 = training.lr
    batch_size: int = Field(default=0, ge=0)  # 0 = training.batch_size
    # Of an image of the sources, each time it is trained on, to take on the style of a vehicle's:
    # see training.style, which says what a style is. 0 = never.
    style_probability: float = Field(default=0.0, ge=0, le=1)


class SafetyConfig(Section):
    """When self-training is not trusted: on the server's labelled sets, against the first model."""

    # Most mIoU, of 1, that the published model may have lost; the newest that has not is published.
    max_loss: float = Field(default=0.02, ge=0, le=1)
    # The run ends where the entropy of predicted classes falls below this share of what it was.
    collapse: float = Field(default=0.5, ge=0, le=1)  # 0 = off
