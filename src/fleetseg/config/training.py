"""What a client does with its samples in one round."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, PositiveFloat, PositiveInt

from fleetseg.config.section import Section


class ProxConfig(Section):
    """Of the objective prox (FedProx)."""

    mu: float = Field(default=0.01, ge=0)  # of mu / 2 |y - w|^2, beside the loss


class EntropyConfig(Section):
    """Of the loss entropy."""

    weight: float = Field(default=0.01)  # of sum p log p; below 0, predictions get surer


class TrainingConfig(Section):
    """What a client does with its samples in one round."""

    optimiser: Literal["sgd", "adamw"] = "sgd"
    lr: float = Field(default=0.05, gt=0)  # peak learning rate, before the schedule
    momentum: float = Field(default=0.9, ge=0, lt=1)  # sgd
    nesterov: bool = False
    weight_decay: float = Field(default=5e-4, ge=0)  # never on norms and biases
    head_lr_factor: float = Field(default=1.0, gt=0)  # learning rate of heads over that of the rest
    clip_grad_norm: float = Field(default=0.0, ge=0)  # L2, 0 = off
    optimiser_state: Literal["reset", "kept"] = "reset"  # between the rounds of a client
    batch_size: int = Field(default=8, ge=1)
    local_epochs: int = Field(default=1, ge=1)
    local_steps: int = Field(default=0, ge=0)  # > 0: exactly this many steps, overrides epochs
    schedule: Literal["constant", "poly", "cosine"] = "poly"  # over global rounds
    warmup_rounds: int = Field(default=0, ge=0)
    # FixBN: past this share of the rounds, batch norms train with the global running statistics
    # instead of each batch's, and leave them as they are; 1 = never.
    freeze_bn_after: float = Field(default=1.0, ge=0, le=1)
    supervision: str = "labels"  # where the loss comes from: see learning.supervision
    objective: str = "plain"  # what is added to it: see learning.objectives
    loss: str = "ce"  # ce, ohem, focal, dice, lovasz, entropy, or a sum such as "ce+dice"
    class_weights: Literal["none", "local", "fleet"] = "none"  # 1/ln(1.1 + pixel share)
    ohem_fraction: float = Field(default=0.25, gt=0, le=1)  # of the valid pixels
    focal_gamma: float = Field(default=2.0, ge=0)
    aux_weight: float = Field(default=1.0, ge=0)  # of each auxiliary head's loss
    crop: tuple[PositiveInt, PositiveInt] | None = None  # (height, width); None = the working size
    scale: tuple[PositiveFloat, PositiveFloat] = (0.75, 1.5)  # random scale range; (1, 1) = off
    flip: bool = True
    colour_jitter: float = Field(default=0.25, ge=0, le=1)  # 0 = off
    entropy: EntropyConfig = EntropyConfig()
    prox: ProxConfig = ProxConfig()
