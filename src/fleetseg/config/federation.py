"""What the server does."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, PlainSerializer, ValidatorFunctionWrapHandler, WrapValidator

from fleetseg.config.section import Section


def _count_or_share(value: Any, number_of: ValidatorFunctionWrapHandler) -> float:
    """Keep a whole number a count: 1 is one vehicle, 1.0 the whole fleet."""
    number = float(number_of(value))
    is_count = isinstance(value, int) and not isinstance(value, bool)
    return int(number) if is_count or (number > 1 and number.is_integer()) else number


def _as_it_is(number: Any) -> Any:
    return number  # else an int would be written as a float


Cohort = Annotated[float, WrapValidator(_count_or_share), PlainSerializer(_as_it_is)]
"""An int is a number of vehicles, a float up to 1.0 a share of the fleet."""


class FaultsConfig(Section):
    """Simulated drop-outs and stragglers on a virtual clock."""

    dropout: float = Field(default=0.0, ge=0, le=1)  # chance per client and round to vanish
    stragglers: float = Field(default=0.0, ge=0, le=1)  # share of clients that are slow
    slowdown: float = Field(default=10.0, ge=1)  # how many times slower a straggler is
    seconds_per_image: float = Field(default=0.1, gt=0)  # virtual, of a normal vehicle
    megabytes_per_s: float = Field(default=1.0, gt=0)  # virtual link, each way


class AdaptiveConfig(Section):
    """Of the server optimisers adam, yogi and adagrad: see federation.adaptive."""

    beta1: float = Field(default=0.9, ge=0, lt=1)  # of the mean change
    beta2: float = Field(default=0.99, ge=0, lt=1)  # of its square; not adagrad's
    tau: float = Field(default=1e-3, gt=0)  # keeps steps finite; large = nearer to sgd
    flavour: Literal["paper", "flower"] = "paper"  # flower: zeros at first, adam bias-corrected


class EmaConfig(Section):
    """Of the way to publish ema."""

    beta: float = Field(default=0.9, ge=0, lt=1)  # of what was there; less in the first rounds


class SwaConfig(Section):
    """Of the way to publish swa."""

    start: float = Field(default=0.75, ge=0, lt=1)  # share of the rounds before the first average
    period: int = Field(default=1, ge=1)  # rounds from one model that counts to the next


class FederationConfig(Section):
    """What the server does."""

    rounds: int = Field(default=10, ge=1)
    # A whole number is a count (1 = one vehicle), a fraction a share (1.0 = the whole fleet).
    cohort: Cohort = Field(default=1.0, gt=0)
    sampler: str = "uniform"  # who that is: see federation.cohort
    weights: str = "images"  # how much a client's change counts: images, pixels, uniform
    sharing: str = "all"  # what of the model is exchanged: see federation.sharing
    aggregator: str = "mean"  # see federation.aggregate
    # How running statistics of norm layers become the fleet's: mean, pooled, estimated (anew before
    # a model is published): see federation.statistics.
    statistics: str = "mean"
    server_optimiser: str = "sgd"  # see federation.server_optim
    server_lr: float = Field(default=1.0, gt=0)
    server_momentum: float = Field(default=0.0, ge=0, lt=1)  # FedAvgM
    publishing: str = "last"  # which model is scored and saved: see federation.publishing
    quorum: float = Field(default=0.5, ge=0, le=1)  # share of the cohort that must be usable
    max_failed_rounds: int = Field(default=3, ge=1)  # in a row without quorum, then the run ends
    # Ask this many times the cohort, and close the round once a cohort's worth of updates is in.
    over_selection: float = Field(default=1.0, ge=1, le=2)
    deadline_s: float = Field(default=0.0, ge=0)  # 0 = none; virtual time when faults are simulated
    max_update_norm: float = Field(default=0.0, ge=0)  # L2 of the trainable delta, 0 = off
    uplink: str = "none"  # codec of updates: none, int8, topk(1%)+int8, ...: see compression.codec
    adaptive: AdaptiveConfig = AdaptiveConfig()
    ema: EmaConfig = EmaConfig()
    swa: SwaConfig = SwaConfig()
    faults: FaultsConfig = FaultsConfig()
