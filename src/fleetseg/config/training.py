"""Local training: what a client does with its samples in one round."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from fleetseg.config.habits import HabitsConfig
from fleetseg.config.section import Section
from fleetseg.config.style import StyleConfig


class ProxConfig(Section):
    """Settings of the objective prox (FedProx)."""

    mu: float = Field(default=0.01, ge=0)  # of mu / 2 |y - w|^2, added to the loss


class DynConfig(Section):
    """Settings of the objective dyn (FedDyn)."""

    alpha: float = Field(default=0.01, gt=0)  # of alpha / 2 |y - w|^2


class DriftConfig(Section):
    """Settings of the objective drift (FedDC)."""

    alpha: float = Field(default=0.01, gt=0)  # of alpha / 2 |y - (w - h)|^2


class ClientMomentumConfig(Section):
    """Settings of the objective client momentum (FedCM)."""

    alpha: float = Field(default=0.1, gt=0, le=1)  # share of the client's own gradient in a step


class SamConfig(Section):
    """Settings of the objective sam (FedSAM)."""

    rho: float = Field(default=0.1, ge=0)  # L2 length of the perturbation, over all parameters


class AsamConfig(Section):
    """Settings of the objective asam (FedASAM)."""

    rho: float = Field(default=0.7, ge=0)  # as sam's, each weight in units of |weight| + eta
    eta: float = Field(default=0.2, ge=0)  # in units of weights


class MoonConfig(Section):
    """Settings of the objective moon."""

    mu: float = Field(default=1.0, ge=0)  # weight of the contrastive term
    tau: float = Field(default=0.5, gt=0)  # temperature: small = only the nearer model counts


class FedSpeedConfig(Section):
    """Settings of the objective fedspeed."""

    rho: float = Field(default=0.1, ge=0)  # as sam's
    mu: float = Field(default=0.1, gt=0)  # as prox's; the paper's 1 / lambda


class MimeLiteConfig(Section):
    """Settings of the objective mimelite."""

    beta: float = Field(default=0.9, ge=0, lt=1)  # share of the fleet's momentum in a step


class PixelContrastConfig(Section):
    """Settings of the supervision pixel contrast (FedSeg)."""

    weight: float = Field(default=1.0, gt=0)  # of the contrastive term, added to the loss on labels
    temperature: float = Field(default=0.07, gt=0)
    anchors: int = Field(default=4096, ge=1)  # most pixels of a batch that are compared
    # The received model is trusted where its largest probability is at least this.
    confidence: float = Field(default=0.8, ge=0, le=1)
    start_round: int = Field(default=2, ge=1)  # first round with contrast; labels only before


class SelfTrainingConfig(Section):
    """Settings of the supervision self_training: see learning.self_training."""

    # fixed: the model that training starts from; round: the global model, renewed every `every`
    # rounds; ema and swa: averages over rounds.
    teacher: Literal["fixed", "round", "ema", "swa"] = "round"
    every: int = Field(default=1, ge=1)  # round, swa: rounds from one teacher to the next
    ema: float = Field(default=0.9, ge=0, lt=1)  # ema: share of the old teacher that is kept
    swa_start: float = Field(default=0.2, ge=0, lt=1)  # swa: share of the rounds before averaging
    # Which of the teacher's predictions are used. threshold: those more confident than
    # `confidence`; class share: the most confident share `top` of each class of an image; either;
    # quality: all of an image, weighted by the share of its pixels above `confidence`.
    select: Literal["threshold", "class share", "either", "quality"] = "either"
    confidence: float = Field(default=0.9, ge=0, lt=1)
    top: float = Field(default=0.66, gt=0, le=1)
    # threshold, class share, either: divide the loss by the number of pixels used, or of all
    # pixels, which makes it small where few are used.
    normalise: Literal["kept", "all"] = "all"
    weight: float = Field(default=1.0, ge=0)  # of the loss on the teacher's predictions; 0 = off
    # Augmentation of the student's images only; both models share crops and mirroring.
    jitter: float = Field(default=0.5, ge=0, le=1)  # of brightness, contrast, saturation
    blur: float = Field(default=0.5, ge=0, le=1)  # probability per image
    mix: Literal["none", "classmix", "cutmix"] = "classmix"
    # Further terms of the loss, each off at 0.
    distil: float = Field(default=0.0, ge=0)  # weight of pixel-wise distillation of the first model
    distil_temperature: float = Field(default=2.0, gt=0)
    entropy: float = Field(default=0.0, ge=0)  # weight of the mean entropy, in units of log C
    max_square: float = Field(default=0.0, ge=0)  # weight
    max_square_ratio: float = Field(default=0.2, ge=0, le=1)  # 0 = classes weigh the same
    # Rare-class sampling, by the classes that the teacher confidently predicts in each image: the
    # temperature of the class probabilities (DAFormer: 0.01). 0 = each image once an epoch.
    rare_classes: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    from_scratch: bool = False  # allow a start from random, uninformative weights


class DiscrepancyConfig(Section):
    """Settings of the supervision discrepancy (MCD): see learning.discrepancy."""

    # A batch takes 2 + this many steps: everything, the two heads, then so often the extractor.
    extractor_steps: int = Field(default=4, ge=1)


class PhaseConfig(Section):
    """A phase of a client's round: a part of the network is trained, and the rest is frozen."""

    learns: Literal["all", "body", "head"] = "all"
    share: float = Field(default=1.0, gt=0)  # of the round's steps, relative to the other phases


class EntropyConfig(Section):
    """Settings of the loss entropy."""

    weight: float = Field(default=0.01)  # of sum p log p; below 0, predictions sharpen


class WeatherConfig(Section):
    """Synthetic weather on training images, at the working size and before colour jitter."""

    probability: float = Field(default=0.0, ge=0, le=1)  # per image; 0 = off
    kinds: tuple[Literal["fog", "rain", "night", "snow", "glare"], ...] = Field(
        default=("fog", "rain", "night", "snow", "glare"), min_length=1
    )  # equally likely
    # (least, most), drawn uniformly; 0 is the unchanged image, 1 the worst: see data.weather.
    severity: tuple[float, float] = (0.2, 0.9)

    @model_validator(mode="after")
    def _is_a_range(self) -> WeatherConfig:
        if not 0 <= self.severity[0] <= self.severity[1] <= 1:
            raise ValueError("training.weather.severity is (least, most), both from 0 to 1")
        return self


class MixStyleConfig(Section):
    """Mixing of feature statistics between the images of a batch (MixStyle)."""

    probability: float = Field(default=0.0, ge=0, le=1)  # per stage and step; 0 = off
    alpha: float = Field(default=0.1, gt=0)  # of Beta(alpha, alpha); small = one of the two images
    # Which features: the last ones at each of these strides (image pixels per feature pixel).
    stages: tuple[int, ...] = Field(default=(4, 8), min_length=1)


class FedFAConfig(Section):
    """Noise in feature statistics, sized by their variance over vehicles (FedFA)."""

    probability: float = Field(default=0.0, ge=0, le=1)  # per stage and step; 0 = off
    stages: tuple[int, ...] = Field(default=(4, 8), min_length=1)  # as mixstyle's


class FeatureDistanceConfig(Section):
    """A pull of the encoder's last features to those with its ImageNet weights (DAFormer)."""

    weight: float = Field(default=0.0, ge=0, allow_inf_nan=False)  # 0 = off; DAFormer: 0.005
    # Only where the labels show these classes; empty = the label space's safety-critical ones.
    classes: tuple[str, ...] = ()
    ratio: float = Field(default=0.75, ge=0, lt=1)  # a class must cover more of a feature's cell


class TrainingConfig(Section):
    """A client's local training in one round."""

    optimiser: Literal["sgd", "adamw"] = "sgd"
    lr: float = Field(default=0.05, gt=0)  # peak learning rate, before the schedule
    momentum: float = Field(default=0.9, ge=0, lt=1)  # sgd
    nesterov: bool = False
    weight_decay: float = Field(default=5e-4, ge=0)  # not on norms and biases
    head_lr_factor: float = Field(default=1.0, gt=0)  # learning rate of heads, relative to the rest
    clip_grad_norm: float = Field(default=0.0, ge=0)  # L2, 0 = off
    optimiser_state: Literal["reset", "kept"] = "reset"  # between the rounds of a client
    batch_size: int = Field(default=8, ge=1)
    local_epochs: int = Field(default=1, ge=1)
    local_steps: int = Field(default=0, ge=0)  # > 0: exactly this many steps, overrides epochs
    # Phases of a round, in order; empty = everything is trained throughout. At least a step each.
    phases: tuple[PhaseConfig, ...] = ()
    # Over global rounds. poly_feddrive and step_fedseg are what the code of those systems does.
    schedule: Literal["constant", "poly", "cosine", "poly_feddrive", "step_fedseg"] = "poly"
    warmup_rounds: int = Field(default=0, ge=0)
    # FixBN: past this share of the rounds, batch norms train with the global running statistics
    # instead of each batch's, and leave them as they are; 1 = never.
    freeze_bn_after: float = Field(default=1.0, ge=0, le=1)
    supervision: str = "labels"  # where the loss comes from: see learning.supervision
    objective: str = "plain"  # what is added to that loss: see learning.objectives
    # ce, ohem, focal, dice, lovasz, ohem_feddrive, ohem_fedseg, entropy,
    # or a sum such as "ce+dice"
    loss: str = "ce"
    # Shifts logits in the loss by the client's pixel counts per class: see learning.calibration.
    calibration: str = "none"
    calibration_tau: float = Field(default=1.0, gt=0)  # its strength
    class_weights: Literal["none", "local", "fleet"] = "none"  # 1/ln(1.1 + pixel share)
    ohem_fraction: float = Field(default=0.25, gt=0, le=1)  # of the valid pixels
    focal_gamma: float = Field(default=2.0, ge=0)
    aux_weight: float = Field(default=1.0, ge=0)  # of each auxiliary head's loss
    crop: tuple[PositiveInt, PositiveInt] | None = None  # (height, width); None = the working size
    scale: tuple[PositiveFloat, PositiveFloat] = (0.75, 1.5)  # random scale range; (1, 1) = off
    flip: bool = True
    colour_jitter: float = Field(default=0.25, ge=0, le=1)  # 0 = off
    style: StyleConfig = StyleConfig()  # of other vehicles, applied before all of the above
    weather: WeatherConfig = WeatherConfig()
    mixstyle: MixStyleConfig = MixStyleConfig()
    fedfa: FedFAConfig = FedFAConfig()
    feature_distance: FeatureDistanceConfig = FeatureDistanceConfig()
    entropy: EntropyConfig = EntropyConfig()
    prox: ProxConfig = ProxConfig()
    dyn: DynConfig = DynConfig()
    drift: DriftConfig = DriftConfig()
    client_momentum: ClientMomentumConfig = ClientMomentumConfig()
    sam: SamConfig = SamConfig()
    asam: AsamConfig = AsamConfig()
    moon: MoonConfig = MoonConfig()
    fedspeed: FedSpeedConfig = FedSpeedConfig()
    mimelite: MimeLiteConfig = MimeLiteConfig()
    pixel_contrast: PixelContrastConfig = PixelContrastConfig()
    self_training: SelfTrainingConfig = SelfTrainingConfig()
    discrepancy: DiscrepancyConfig = DiscrepancyConfig()
    habits: HabitsConfig = HabitsConfig()
