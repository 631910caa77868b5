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


class ExtrapolatedConfig(Section):
    """Of the aggregator extrapolated (FedExP)."""

    eps: float = Field(default=1e-3, gt=0)  # squared length of a change, of each client: damps
    eps_decay: float = Field(default=0.998**2, gt=0, le=1)  # of eps, each round


class QueueConfig(Section):
    """Of the server optimiser queue (HyperFLAW)."""

    length: int = Field(default=5, ge=1)  # how many of the last global models count


class EmaConfig(Section):
    """Of the way to publish ema."""

    beta: float = Field(default=0.9, ge=0, lt=1)  # of what was there; less in the first rounds


class FedgauConfig(Section):
    """Of the weights fedgau: images / (distance + epsilon)."""

    epsilon: float = Field(default=0.01, gt=0)  # of a Bhattacharyya distance; large = by images


class GapConfig(Section):
    """Of the weights feddg-ga."""

    step: float = Field(default=0.2, ge=0)  # d: of an equal share, in the first rounds


class QfflConfig(Section):
    """Of the aggregator q-fedavg."""

    q: float = Field(default=1.0, ge=0)  # 0 = the mean; the larger, the more do high losses count
    lipschitz: float = Field(default=20.0, gt=0)  # L: 1 / training.lr, as the paper estimates it


class ClustersConfig(Section):
    """Of the sampler clusters."""

    count: int = Field(default=0, ge=0)  # of clusters; 0 = as many as a cohort has places


class ClusterModelsConfig(Section):
    """Of clusters with tensors of their own: see federation.cluster_state."""

    count: int = Field(default=0, ge=0)  # of clusters; 0 = the best silhouette says
    max_count: int = Field(default=8, ge=2)  # most that a silhouette may choose
    tensors: Literal["all", "head", "norms", "encoder", "decoder", "stages"] = "all"
    stages: tuple[str, ...] = ()  # of tensors = "stages": the modules that each cluster has
    # Of clusters by loss: noise that tells them apart at first, in units of each tensor's RMS.
    spread: float = Field(default=0.1, gt=0)


class PowerOfChoiceConfig(Section):
    """Of the sampler power of choice."""

    candidates: int = Field(default=0, ge=0)  # d, of whom the cohort is chosen; 0 = twice as many


class OortConfig(Section):
    """Of the sampler oort: see federation.oort."""

    explore: float = Field(default=0.9, ge=0, le=1)  # share of a cohort that never took part
    explore_decay: float = Field(default=0.98, gt=0, le=1)  # of that share, a round
    explore_least: float = Field(default=0.2, ge=0, le=1)  # of that share
    cut_off: float = Field(default=0.95, ge=0, le=1)  # of the score of the last who has a place
    clip: float = Field(default=0.98, ge=0, le=1)  # share of utilities that are not clipped
    slow_penalty: float = Field(default=2.0, ge=0)  # alpha, of who takes longer than T
    pace: float = Field(default=0.3, ge=0, le=1)  # T, as a share of clients that are in time
    pace_step: float = Field(default=0.05, ge=0, le=1)  # added to it when utility falls
    window: int = Field(default=20, ge=1)  # rounds whose utility is compared


class SwaConfig(Section):
    """Of the way to publish swa."""

    start: float = Field(default=0.75, ge=0, lt=1)  # share of the rounds before the first average
    period: int = Field(default=1, ge=1)  # rounds from one model that counts to the next


class FederationConfig(Section):
    """What the server does."""

    rounds: int = Field(default=10, ge=1)
    # Who takes part at all: shell patterns of vehicles' names (car-*); exclude wins. Empty = all.
    only: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    # A whole number is a count (1 = one vehicle), a fraction a share (1.0 = the whole fleet).
    cohort: Cohort = Field(default=1.0, gt=0)
    sampler: str = "uniform"  # who that is: see federation.cohort
    weights: str = "images"  # how much a client's change counts: see federation.weights
    sharing: str = "all"  # what of the model is exchanged: see federation.sharing
    stages: tuple[str, ...] = ()  # of sharing = "stages": the modules that are exchanged
    # What makes clusters of vehicles that have tensors of their own: none, class mix, loss, or the
    # name of a fact that each vehicle reports: see federation.cluster_points.
    clustered_by: str = "none"
    aggregator: str = "mean"  # see federation.aggregators
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
    # 0 = none, but over a network what rounds have taken; virtual time when faults are simulated.
    deadline_s: float = Field(default=0.0, ge=0)
    max_update_norm: float = Field(default=0.0, ge=0)  # L2 of the trainable delta, 0 = off
    uplink: str = "none"  # codec of updates: none, int8, topk(1%)+int8, ...: see compression.codec
    # Other codecs from a share of the rounds on: [[0.5, "topk(5%)+int8"], [0.9, "int8"]].
    uplink_schedule: tuple[tuple[Annotated[float, Field(ge=0, lt=1)], str], ...] = ()
    downlink: str = "none"  # codec of what a vehicle lacks of the model: see federation.downlink
    downlink_start: str = "none"  # codec of the first model, which a vehicle has nothing of
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
