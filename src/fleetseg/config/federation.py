"""The server: cohorts, aggregation, what is exchanged, and what is published."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, PlainSerializer, ValidatorFunctionWrapHandler, WrapValidator

from fleetseg.config.section import Section


def _count_or_share(value: Any, number_of: ValidatorFunctionWrapHandler) -> float:
    """Tell counts from shares: 1 is one vehicle, 1.0 the whole fleet."""
    number = float(number_of(value))
    is_count = isinstance(value, int) and not isinstance(value, bool)
    return int(number) if is_count or (number > 1 and number.is_integer()) else number


def _as_it_is(number: Any) -> Any:
    return number  # without this, an int would be written as a float


Cohort = Annotated[float, WrapValidator(_count_or_share), PlainSerializer(_as_it_is)]
"""An int is a number of vehicles, a float up to 1.0 a share of the fleet."""


class FaultsConfig(Section):
    """Simulated drop-outs and stragglers on a virtual clock."""

    dropout: float = Field(default=0.0, ge=0, le=1)  # probability per client and round
    stragglers: float = Field(default=0.0, ge=0, le=1)  # share of clients that are slow
    slowdown: float = Field(default=10.0, ge=1)  # how many times slower a straggler is
    seconds_per_image: float = Field(default=0.1, gt=0)  # virtual, of a normal vehicle
    megabytes_per_s: float = Field(default=1.0, gt=0)  # virtual link, each way


class AdaptiveConfig(Section):
    """Settings of the server optimisers adam, yogi and adagrad: see federation.adaptive."""

    beta1: float = Field(default=0.9, ge=0, lt=1)  # decay of the mean change
    beta2: float = Field(default=0.99, ge=0, lt=1)  # decay of its square; adagrad has none
    tau: float = Field(default=1e-3, gt=0)  # keeps steps finite; large = nearer to sgd
    flavour: Literal["paper", "flower"] = "paper"  # flower: v = 0 at first, adam bias-corrected


class ExtrapolatedConfig(Section):
    """Settings of the aggregator extrapolated (FedExP)."""

    eps: float = Field(default=1e-3, gt=0)  # damping, per client: a squared norm of a change
    eps_decay: float = Field(default=0.998**2, gt=0, le=1)  # factor on eps, each round


class QueueConfig(Section):
    """Settings of the server optimiser queue (HyperFLAW)."""

    length: int = Field(default=5, ge=1)  # how many of the last global models are averaged


class EmaConfig(Section):
    """Settings of publishing = "ema"."""

    beta: float = Field(default=0.9, ge=0, lt=1)  # weight of the old average; less at first


class FedgauConfig(Section):
    """Settings of the weights fedgau: images / (distance + epsilon)."""

    epsilon: float = Field(default=0.01, gt=0)  # in units of the distance; large = by images


class GapConfig(Section):
    """Settings of the weights feddg-ga."""

    step: float = Field(default=0.2, ge=0)  # d: initial step, as a fraction of an equal share


class QfflConfig(Section):
    """Settings of the aggregator q-fedavg."""

    q: float = Field(default=1.0, ge=0)  # 0 = the mean; larger = more weight on high losses
    lipschitz: float = Field(default=20.0, gt=0)  # L: 1 / training.lr, as the paper estimates it


class ClustersConfig(Section):
    """Settings of the sampler clusters."""

    count: int = Field(default=0, ge=0)  # number of clusters; 0 = the size of a cohort


class ClusterModelsConfig(Section):
    """Settings of clusters with tensors of their own: see federation.cluster_state."""

    count: int = Field(default=0, ge=0)  # number of clusters; 0 = the one with the best silhouette
    max_count: int = Field(default=8, ge=2)  # largest number chosen by silhouette
    tensors: Literal["all", "head", "norms", "encoder", "decoder", "stages"] = "all"
    stages: tuple[str, ...] = ()  # tensors = "stages": the modules that each cluster has its own of
    # Clusters by loss: initial noise that tells them apart, in units of each tensor's RMS.
    spread: float = Field(default=0.1, gt=0)


class PowerOfChoiceConfig(Section):
    """Settings of the sampler power of choice."""

    candidates: int = Field(default=0, ge=0)  # d: candidates for a cohort; 0 = twice its size


class OortConfig(Section):
    """Settings of the sampler oort: see federation.oort."""

    explore: float = Field(default=0.9, ge=0, le=1)  # share of a cohort that has never taken part
    explore_decay: float = Field(default=0.98, gt=0, le=1)  # factor on that share, each round
    explore_least: float = Field(default=0.2, ge=0, le=1)  # lower bound of that share
    cut_off: float = Field(default=0.95, ge=0, le=1)  # fraction of the last place's score
    clip: float = Field(default=0.98, ge=0, le=1)  # share of utilities that are not clipped
    slow_penalty: float = Field(default=2.0, ge=0)  # alpha, for clients that take longer than T
    pace: float = Field(default=0.3, ge=0, le=1)  # T, as the share of clients that are in time
    pace_step: float = Field(default=0.05, ge=0, le=1)  # added to it when utility falls
    window: int = Field(default=20, ge=1)  # rounds whose utility is compared


class SwaConfig(Section):
    """Settings of publishing = "swa"."""

    start: float = Field(default=0.75, ge=0, lt=1)  # share of the rounds before the first average
    period: int = Field(default=1, ge=1)  # rounds between averaged models


class FederationConfig(Section):
    """Settings of the server and of what is exchanged with it."""

    rounds: int = Field(default=10, ge=1)
    # Which vehicles take part: shell patterns for their names (car-*); exclude wins. Empty = all.
    only: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    # A whole number is a count (1 = one vehicle), a fraction a share (1.0 = the whole fleet).
    cohort: Cohort = Field(default=1.0, gt=0)
    sampler: str = "uniform"  # how a cohort is drawn: see federation.cohort
    weights: str = "images"  # how much a client's change counts: see federation.weights
    sharing: str = "all"  # which part of the model is exchanged: see federation.sharing
    stages: tuple[str, ...] = ()  # sharing = "stages": the modules that are exchanged
    # How vehicles are clustered, if clusters have tensors of their own: none, class mix, loss, or
    # the name of a fact that each vehicle reports: see federation.cluster_points.
    clustered_by: str = "none"
    aggregator: str = "mean"  # see federation.aggregators
    # How running statistics of norm layers are aggregated: mean, pooled, estimated (measured again
    # before a model is published): see federation.statistics.
    statistics: str = "mean"
    server_optimiser: str = "sgd"  # see federation.server_optim
    server_lr: float = Field(default=1.0, gt=0)
    server_momentum: float = Field(default=0.0, ge=0, lt=1)  # FedAvgM
    publishing: str = "last"  # which model is scored and saved: see federation.publishing
    quorum: float = Field(default=0.5, ge=0, le=1)  # share of the cohort that must be usable
    max_failed_rounds: int = Field(default=3, ge=1)  # consecutive, without quorum: the run ends
    # Ask this multiple of the cohort, and close the round once a cohort's worth of updates is in.
    over_selection: float = Field(default=1.0, ge=1, le=2)
    # 0 = none; over a network, set by how long rounds have taken. Virtual time if faults are
    # simulated.
    deadline_s: float = Field(default=0.0, ge=0)
    max_update_norm: float = Field(default=0.0, ge=0)  # L2 of the trainable delta, 0 = off
    uplink: str = "none"  # codec of updates: none, int8, topk(1%)+int8, ...: see compression.codec
    # Other codecs after a share of the rounds: [[0.5, "topk(5%)+int8"], [0.9, "int8"]].
    uplink_schedule: tuple[tuple[Annotated[float, Field(ge=0, lt=1)], str], ...] = ()
    downlink: str = "none"  # codec of changes since a vehicle's model: see federation.downlink
    downlink_start: str = "none"  # codec of the first model that a vehicle receives
    adaptive: AdaptiveConfig = AdaptiveConfig()
    extrapolated: ExtrapolatedConfig = ExtrapolatedConfig()
    queue: QueueConfig = QueueConfig()
    ema: EmaConfig = EmaConfig()
    fedgau: FedgauConfig = FedgauConfig()
    gap: GapConfig = GapConfig()
    qffl: QfflConfig = QfflConfig()
    clusters: ClustersConfig = ClustersConfig()
    cluster_models: ClusterModelsConfig = ClusterModelsConfig()
    power_of_choice: PowerOfChoiceConfig = PowerOfChoiceConfig()
    oort: OortConfig = OortConfig()
    swa: SwaConfig = SwaConfig()
    faults: FaultsConfig = FaultsConfig()
