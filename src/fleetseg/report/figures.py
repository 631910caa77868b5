"""The page's content as values: every figure is computed before a template sees it.

IoUs, shares and their differences are fractions of 1; None means that there is nothing to rate.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Kind = Literal["federated", "centralised", "alone"]
Ratio = float | None


@dataclass(frozen=True)
class Interval:
    """The range of a figure, or of a difference of two, when frames are resampled."""

    low: float
    high: float

    @property
    def leaves_zero_out(self) -> bool:
        """Whether the whole interval of a difference has the same sign."""
        return self.low > 0 or self.high < 0


@dataclass(frozen=True)
class IntervalFigures:
    """Intervals of the newest scores; gaps are to the centralised run, where frames are equal."""

    blocks: int  # number of blocks of frames to draw from
    frames: int
    draws: int
    confidence: float
    miou: Interval | None
    critical_miou: Interval | None
    iou_C: tuple[Interval | None, ...]
    gap_miou: Interval | None
    gap_critical_miou: Interval | None
    gap_C: tuple[Interval | None, ...]  # empty where there is no gap


@dataclass(frozen=True)
class RunFigures:
    """One run as a row: its scores and its cost."""

    name: str
    kind: Kind
    seed: int
    miou: Ratio
    critical_miou: Ratio
    iou_C: tuple[Ratio, ...]
    images: int
    steps: int
    steps_in_a_row: int
    bytes_up: int
    bytes_down: int
    rounds: int
    planned_rounds: int
    seconds: float  # of all rounds, by the engine's clock
    model_sha256: str
    curve: tuple[tuple[int, float], ...]  # (round, mIoU) where scored
    losses: tuple[tuple[int, float], ...]


@dataclass(frozen=True)
class ClassFigures:
    """One class on the evaluation set, with its baselines."""

    name: str
    critical: bool
    iou: Ratio
    share: float  # of the scored pixels, by the truth
    centralised: Ratio
    alone: Ratio  # mean over the vehicles that trained alone
    history: tuple[tuple[int, Ratio], ...]  # (round, IoU)
    interval: Interval | None = None  # of the IoU
    gap_interval: Interval | None = None

    @property
    def gap(self) -> Ratio:
        """Difference to the centralised run, positive where this run is better."""
        if self.iou is None or self.centralised is None:
            return None
        return self.iou - self.centralised


@dataclass(frozen=True)
class RoundFigures:
    """One round; megabytes are 1e6 bytes."""

    round: int
    asked: int
    answered: int
    failed: Mapping[str, int]  # kind -> how many
    loss: float | None
    miou: Ratio
    critical_miou: Ratio
    seconds: float
    training_seconds: float | None  # of `seconds`, until the last answer; None = not recorded
    mb_up: float
    mb_down: float


@dataclass(frozen=True)
class EventFigures:
    """A short description of what happened in a round, or before it."""

    round: int
    text: str


@dataclass(frozen=True)
class VehicleFigures:
    """The global model on one vehicle's own frames."""

    name: str
    miou: Ratio
    critical_miou: Ratio
    iou_C: tuple[Ratio, ...]
    share_C: tuple[float, ...]  # of the vehicle's pixels
    personal_miou: Ratio


@dataclass(frozen=True)
class MixFigures:
    """One vehicle's class shares, compared with the fleet."""

    name: str
    images: int | None
    distance: float  # Jensen-Shannon, base 2: 0 (alike) to 1 (disjoint)
    share_C: tuple[float, ...]
    log_ratio_C: tuple[float | None, ...]  # log2 of its share over the fleet's; None = no pixel


@dataclass(frozen=True)
class LookFigures:
    """The average appearance of one vehicle's images; brightness is from 0 to 1."""

    name: str
    brightness: float
    colour: str  # "#5f6b6a"; "" = not known


@dataclass(frozen=True)
class AttendanceFigures:
    """One vehicle's participation. `marks` are (first round, last round, what happened)."""

    name: str
    images: int | None
    asked: int
    answered: int
    failed: Mapping[str, int]
    marks: tuple[tuple[int, int, str], ...]


@dataclass(frozen=True)
class DomainFigures:
    """One domain of the evaluation frames."""

    name: str
    seen: bool | None  # whether it was trained on; None = not known
    miou: Ratio
    critical_miou: Ratio
    centralised: Ratio

    @property
    def gap(self) -> Ratio:
        """Difference to the centralised run, positive where this run is better."""
        if self.miou is None or self.centralised is None:
            return None
        return self.miou - self.centralised


@dataclass(frozen=True)
class ConfusionFigures:
    """Shares of each true class's pixels by prediction, the class with the lowest recall first."""

    classes: tuple[str, ...]
    share_CC: tuple[tuple[float, ...], ...]  # rows add to 1, or are 0 for a class without pixels
    precision_C: tuple[Ratio, ...]


@dataclass(frozen=True)
class SettingFigures:
    """One setting of the experiment."""

    name: str
    values: tuple[str, ...]  # for each run shown
    default: str


@dataclass(frozen=True)
class MessageFigures:
    """One kind of message that left vehicles."""

    message: str
    what: str
    times: str
    each: str


@dataclass(frozen=True)
class FrameFigures:
    """One frame with its predictions at several scorings; pictures are data URIs."""

    name: str
    domain: str
    width: int
    height: int
    image: str
    truth: str  # in the classes' colours
    prediction: str  # of the newest scoring, in the classes' colours
    wrong: str
    wrong_share: float
    mistakes: tuple[tuple[str, str, float], ...]  # (truth, prediction, share of the wrong pixels)
    truth_ids: str  # WebP of class ids, base64
    ids_by_round: tuple[tuple[int, str, float], ...]  # (round, WebP of class ids, share wrong)
    by: str = ""  # which model made the newest prediction, if there are several


@dataclass(frozen=True)
class ReportFigures:
    """All figures of one page."""

    run: RunFigures  # the subject of the page
    others: tuple[RunFigures, ...]  # other federated runs
    centralised: RunFigures | None
    alone: tuple[RunFigures, ...]
    classes: tuple[ClassFigures, ...]
    rounds: tuple[RoundFigures, ...]
    vehicles: tuple[VehicleFigures, ...]  # worst first
    vehicles_on: str  # which of their frames
    mix: tuple[MixFigures, ...]  # least similar first
    mix_of: str  # what was counted
    attendance: tuple[AttendanceFigures, ...]
    reasons: tuple[tuple[str, int], ...]  # why answers were not used, most frequent first
    left: tuple[MessageFigures, ...]
    domains: tuple[DomainFigures, ...]
    confusion: ConfusionFigures | None
    changed: tuple[SettingFigures, ...]
    unchanged: tuple[SettingFigures, ...]
    frames: tuple[FrameFigures, ...]
    facts: Mapping[str, str]  # of the environment, by label
    protocol: str  # the sentence below the headline
    scored_on: str
    scored_frames: int | None
    scored_round: int
    class_names: tuple[str, ...]  # in the order of columns `_C`
    critical_names: tuple[str, ...]
    colours: tuple[tuple[int, int, int], ...]
    by: str  # what a domain is: condition, city, ...
    num_vehicles: int
    num_images: int | None
    command: str  # path of the run folder, for commands
    reason: str
    started: str  # ISO 8601, UTC; "" where it was not recorded
    intervals: IntervalFigures | None = None
    no_intervals: str = ""  # why there are none
    events: tuple[EventFigures, ...] = ()
    looks: tuple[LookFigures, ...] = ()  # furthest from the mean vehicle first
    looks_of: str = ""  # what was examined; "" = nothing is known

    @property
    def mean_brightness(self) -> float:
        """Mean over the vehicles whose images' brightness is known, each counted once."""
        return sum(row.brightness for row in self.looks) / max(1, len(self.looks))

    @property
    def is_over(self) -> bool:
        """Whether the run has ended, for whatever reason."""
        return bool(self.reason)

    @property
    def is_scored(self) -> bool:
        """Whether there is a score over all frames."""
        return self.run.miou is not None

    @property
    def equal_images(self) -> bool:
        """Whether the centralised run saw as many images, within 5 %."""
        if self.centralised is None or not self.run.images:
            return False
        return abs(self.centralised.images / self.run.images - 1) <= 0.05
