"""What an experiment can say: frozen, typed sections with their defaults.

Every default carries its unit in its name or its comment. `Experiment.digest` identifies the
experiment in run folders and checkpoints; nothing in an experiment can name code to run. How one is
read from a file is in `experiment_file`.
"""

from __future__ import annotations

import hashlib
import json
import re
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PlainSerializer,
    PositiveFloat,
    PositiveInt,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    field_validator,
    model_validator,
)

from fleetseg.methods import METHODS


def _count_or_share(value: Any, number_of: ValidatorFunctionWrapHandler) -> float:
    """Keep a whole number a count: 1 is one vehicle, 1.0 the whole fleet."""
    number = float(number_of(value))
    is_count = isinstance(value, int) and not isinstance(value, bool)
    return int(number) if is_count or (number > 1 and number.is_integer()) else number


def _as_it_is(number: Any) -> Any:
    return number  # else an int would be written as a float


Cohort = Annotated[float, WrapValidator(_count_or_share), PlainSerializer(_as_it_is)]
"""An int is a number of vehicles, a float up to 1.0 a share of the fleet."""


class _Section(BaseModel):
    model_config = ConfigDict(
        frozen=True, extra="forbid", validate_default=True, allow_inf_nan=False
    )


class SourceConfig(_Section):
    """One data set on disk, or the synthetic one."""

    kind: str = "synthetic"  # a name in fleetseg.data.sources.SOURCES
    root: str = ""  # folder; "~", "${VARIABLE}" and paths relative to the TOML file are resolved
    split: str = "train"
    # Only for kind = "synthetic":
    cities: tuple[str, ...] = ()  # empty = all
    conditions: tuple[str, ...] = ()  # empty = all
    frames_per_drive: int = Field(default=12, ge=1)  # frames of each (city, condition) drive
    seed: int = 0  # of the painter, not of the training
    # Optional filter: only these drives (sequences) of the source, empty = all.
    sequences: tuple[str, ...] = ()
    limit: int = Field(default=0, ge=0)  # keep this many samples, evenly spaced; 0 = all


class PartitionConfig(_Section):
    """Who holds which sample."""

    kind: Literal["natural", "iid", "dirichlet", "file"] = "natural"
    by: Literal["sequence", "city", "condition", "domain", "dataset"] = "sequence"  # natural
    clients: int = Field(default=0, ge=0)  # wished number of clients; 0 = one per natural group
    piece: int = Field(default=0, ge=0)  # natural: wished samples per client; 0 = whole groups
    alpha: float = Field(default=0.5, gt=0)  # dirichlet concentration; small = skewed
    min_size: int = Field(default=2, ge=1)  # dirichlet: fewest samples per client
    file: str = ""  # file: a LEAF-style JSON file or a folder of them
    holdout: float = Field(default=0.0, ge=0, lt=1)  # share of each client's drives, their ends
    holdout_gap: int = Field(default=1, ge=0)  # frames beside held-out ones that nobody trains on


class DataConfig(_Section):
    """What the fleet sees and what the server scores on."""

    # camvid11, cityscapes19, idd7; "own": as the sources' classes.toml says; or such a file's path.
    label_space: str = "camvid11"
    size: tuple[PositiveInt, PositiveInt] = (192, 256)  # working (height, width) in pixels
    sources: tuple[SourceConfig, ...] = (SourceConfig(),)
    evaluation: tuple[SourceConfig, ...] = ()  # held-out sets of the server
    cache: str = ""  # folder; empty = $FLEETSEG_CACHE or the user's cache folder
    # Images are decoded once into the cache, or stay in their files and are decoded for each use.
    store: Literal["decoded", "files"] = "decoded"  # no part of the result
    max_bad_share: float = Field(default=0.05, ge=0, le=1)  # above it, a client abstains


class ModelConfig(_Section):
    """Which network, and from which weights it starts."""

    name: str = "fast_scnn"  # bisenetv2, fast_scnn, zoo:<arch>/<encoder>
    pretrained: Literal["", "imagenet"] = ""
    start: str = ""  # a model folder of an earlier run to start from


class ProxConfig(_Section):
    """Of the objective prox (FedProx)."""

    mu: float = Field(default=0.01, ge=0)  # of mu / 2 |y - w|^2, beside the loss


class TrainingConfig(_Section):
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
    loss: str = "ce"  # ce, ohem, focal, dice, lovasz, or a sum such as "ce+dice"
    class_weights: Literal["none", "local", "fleet"] = "none"  # 1/ln(1.1 + pixel share)
    ohem_fraction: float = Field(default=0.25, gt=0, le=1)  # of the valid pixels
    focal_gamma: float = Field(default=2.0, ge=0)
    aux_weight: float = Field(default=1.0, ge=0)  # of each auxiliary head's loss
    crop: tuple[PositiveInt, PositiveInt] | None = None  # (height, width); None = the working size
    scale: tuple[PositiveFloat, PositiveFloat] = (0.75, 1.5)  # random scale range; (1, 1) = off
    flip: bool = True
    colour_jitter: float = Field(default=0.25, ge=0, le=1)  # 0 = off
    prox: ProxConfig = ProxConfig()


class FaultsConfig(_Section):
    """Simulated drop-outs and stragglers on a virtual clock."""

    dropout: float = Field(default=0.0, ge=0, le=1)  # chance per client and round to vanish
    stragglers: float = Field(default=0.0, ge=0, le=1)  # share of clients that are slow
    slowdown: float = Field(default=10.0, ge=1)  # how many times slower a straggler is
    seconds_per_image: float = Field(default=0.1, gt=0)  # virtual, of a normal vehicle
    megabytes_per_s: float = Field(default=1.0, gt=0)  # virtual link, each way


class AdaptiveConfig(_Section):
    """Of the server optimisers adam, yogi and adagrad: see federation.adaptive."""

    beta1: float = Field(default=0.9, ge=0, lt=1)  # of the mean change
    beta2: float = Field(default=0.99, ge=0, lt=1)  # of its square; not adagrad's
    tau: float = Field(default=1e-3, gt=0)  # keeps steps finite; large = nearer to sgd
    flavour: Literal["paper", "flower"] = "paper"  # flower: zeros at first, adam bias-corrected


class EmaConfig(_Section):
    """Of the way to publish ema."""

    beta: float = Field(default=0.9, ge=0, lt=1)  # of what was there; less in the first rounds


class FederationConfig(_Section):
    """What the server does."""

    rounds: int = Field(default=10, ge=1)
    # A whole number is a count (1 = one vehicle), a fraction a share (1.0 = the whole fleet).
    cohort: Cohort = Field(default=1.0, gt=0)
    sampler: str = "uniform"  # who that is: see federation.cohort
    weights: str = "images"  # how much a client's change counts: images, pixels, uniform
    sharing: str = "all"  # what of the model is exchanged: see federation.sharing
    aggregator: str = "mean"  # see federation.aggregate
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
    faults: FaultsConfig = FaultsConfig()


class StopConfig(_Section):
    """When to stop before the last round; 0 = never for that reason."""

    target_miou: float = Field(default=0.0, ge=0, le=1)
    patience: int = Field(default=0, ge=0)  # evaluations without a gain of min_gain
    min_gain: float = Field(default=0.001, ge=0)
    minutes: float = Field(default=0.0, ge=0)
    megabytes: float = Field(default=0.0, ge=0)  # up and down together


class EvaluationConfig(_Section):
    """When and where the global model is scored."""

    every: int = Field(
        default=1, ge=0
    )  # rounds; the last round is always scored; 0 = only the last
    on_clients: bool = False  # at the end: every client's own (held-out if any) samples
    by: Literal["domain", "dataset", "city", "condition", "sequence"] = "domain"  # groups of scores
    batch_size: int = Field(default=8, ge=1)


class BaselineConfig(_Section):
    """What `--baseline centralised` is allowed."""

    # Written by fleetseg into the run folder of a baseline, so that it is not taken for a fleet's.
    kind: Literal["", "centralised", "local"] = ""
    images_share: float = Field(default=1.0, gt=0)  # of the images the federated run trains on


class EngineConfig(_Section):
    """Where clients run."""

    kind: Literal["auto", "inprocess", "workers", "fleet"] = "auto"
    workers: int = Field(default=0, ge=0)  # 0 = one per allowed core; "fleet": sites, up to 4
    threads: int = Field(default=1, ge=1)  # per client; part of the result, so never automatic
    # Threads that read and augment batches while each client trains; no part of the result. 0 = the
    # training itself does it in between; "auto": one if a core is free, on a GPU two.
    loaders: Literal["auto"] | Annotated[int, Field(ge=0)] = "auto"
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"


class FleetConfig(_Section):
    """Time-outs of a fleet over a network; not part of the experiment's digest."""

    min_vehicles: int = Field(default=1, ge=1)  # fewer than these, and the run waits
    wait_s: float = Field(default=300.0, gt=0)  # for min_vehicles, then the run ends
    gather_s: float = Field(default=120.0, gt=0)  # for vehicles to open their data, per segment
    silent_s: float = Field(default=15.0, gt=2)  # without a sign of life, a vehicle is lost
    fetch_s: float = Field(default=20.0, gt=0)  # idle, and its task not fetched: lost
    segment_rounds: int = Field(default=50, ge=1)  # then the engine's job is renewed
    renew_s: float = Field(default=60.0, ge=0)  # earliest renewal for a vehicle that came back
    round_every_s: float = Field(default=0.0, ge=0)  # rounds begin no closer: vehicles rest
    max_images: int = Field(default=100_000, ge=1)  # that one vehicle may claim: its weight
    outage_s: float = Field(default=300.0, gt=0)  # without any connection, then the run ends


class Experiment(_Section):
    """All that defines a run."""

    name: str = "experiment"
    method: str = ""  # a preset of fleetseg.methods; what is set here wins over its fields
    seed: int = 0
    data: DataConfig = DataConfig()
    partition: PartitionConfig = PartitionConfig()
    model: ModelConfig = ModelConfig()
    training: TrainingConfig = TrainingConfig()
    federation: FederationConfig = FederationConfig()
    stop: StopConfig = StopConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    baseline: BaselineConfig = BaselineConfig()
    engine: EngineConfig = EngineConfig()
    fleet: FleetConfig = FleetConfig()

    @field_validator("name")
    @classmethod
    def _plain_name(cls, value: str) -> str:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", value):
            raise ValueError("a name is letters, digits, '.', '_' and '-'")
        return value

    @model_validator(mode="after")
    def _fits_together(self) -> Experiment:
        if self.federation.cohort > 1 and self.federation.cohort != int(self.federation.cohort):
            raise ValueError(
                "federation.cohort is a share of the fleet up to 1.0; above, it is a number of "
                "vehicles (1, 2, ...) and must be whole"
            )
        if self.partition.kind == "file" and not self.partition.file:
            raise ValueError("partition.kind = 'file' needs partition.file")
        if self.training.scale[0] > self.training.scale[1]:
            raise ValueError("training.scale is (smallest, largest)")
        if self.training.nesterov and self.training.momentum == 0:
            raise ValueError("training.nesterov needs training.momentum > 0")
        return self

    @model_validator(mode="after")
    def _has_its_preset(self) -> Experiment:
        """Refuse a method's name without its fields: they are laid under where fields are read."""
        if not self.method:
            return self
        if self.method not in METHODS:
            raise ValueError(f"unknown method '{self.method}'; one of: {', '.join(METHODS)}")
        for section, fields in METHODS[self.method].fields.items():
            if not fields.keys() <= getattr(self, section).model_fields_set:
                raise ValueError(
                    f"method = '{self.method}' does nothing by itself: use load_experiment, or "
                    "fleetseg.experiment_file.make_experiment, which fill its fields in"
                )
        return self

    @property
    def digest(self) -> str:
        """SHA-256 of what defines the result: not where clients run, images lie, or one waits."""
        fields = self.model_dump(mode="json")
        del fields["fleet"]
        del fields["method"]  # what it stands for is written out
        for key in ("kind", "workers", "loaders"):
            del fields["engine"][key]
        for key in ("cache", "store"):
            del fields["data"][key]
        cohort = fields["federation"]["cohort"]
        # 4 and 4.0 are the same count; 1 and 1.0 are not the same.
        fields["federation"]["cohort"] = float(cohort) if cohort > 1 else cohort
        return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()
