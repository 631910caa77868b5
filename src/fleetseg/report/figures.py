"""What the page shows, as values: every figure is computed before a template sees it.

IoUs, shares and their differences are of 1; None stands where there is nothing to rate.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Kind = Literal["federated", "centralised", "alone"]
Ratio = float | None


@dataclass(frozen=True)
class Interval:
    """Where a figure, or a difference of two, lies when frames are drawn again."""

    low: float
    high: float

    @property
    def leaves_zero_out(self) -> bool:
        """Whether a difference has the same sign all over it."""
        return self.low > 0 or self.high < 0


@dataclass(frozen=True)
class IntervalFigures:
    """Intervals of the newest scores; gaps are to the centralised run, where frames are equal."""

    blocks: int  # of frames, that were drawn from
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
    """One run as a row: what it scores, and what it took."""

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
    curve: tuple[tuple[int, float], ...]  # (round, mIoU) where it was scored
    losses: tuple[tuple[int, float], ...]


@dataclass(frozen=True)
class ClassFigures:
    """One class on the evaluation set, beside what it is compared with."""

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
        """How far it is above the centralised run."""
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
    training_seconds: float | None  # of these, until the last answer; None = not recorded
    mb_up: float
    mb_down: float


@dataclass(frozen=True)
class EventFigures:
    """What happened in a round, or before it, in a few words."""

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
    """Which classes one vehicle holds, against the fleet."""

    name: str
    images: int | None
    distance: float  # Jensen-Shannon, base 2: 0 (alike) to 1 (disjoint)
    share_C: tuple[float, ...]
    log_ratio_C: tuple[float | None, ...]  # log2 of its share by the fleet's; None = no pixel


@dataclass(frozen=True)
class LookFigures:
    """How the images of one vehicle look on average; brightness is from 0 to 1."""

    name: str
    brightness: float
    colour: str  # "#5f6b6a"; "" = not known


@dataclass(frozen=True)
class AttendanceFigures:
    """How one vehicle took part. `marks` are (first round, last round, what happened)."""

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
        """How far it is above the centralised run."""
        if self.miou is None or self.centralised is None:
            return None
        return self.miou - self.centralised


@dataclass(frozen=True)
class ConfusionFigures:
    """Shares of each true class's pixels by prediction, least found class first."""

    classes: tuple[str, ...]
    share_CC: tuple[tuple[float, ...], ...]  # rows add to 1, or are 0 for a class without pixels
    precision_C: tuple[Ratio, ...]


@dataclass(frozen=True)
class SettingFigures:
    """One setting of the experiment."""

    name: str
    values: tuple[str, ...]  # of each run that is shown
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
    by: str = ""  # which model made the newest prediction, where there are several


@dataclass(frozen=True)
class ReportFigures:
    """All of one page."""

    run: RunFigures  # the one that the page is about
    others: tuple[RunFigures, ...]  # federated runs beside it
    centralised: RunFigures | None
    alone: tuple[RunFigures, ...]
    classes: tuple[ClassFigures, ...]
    rounds: tuple[RoundFigures, ...]
    vehicles: tuple[VehicleFigures, ...]  # worst first
    vehicles_on: str  # which of their frames
    mix: tuple[MixFigures, ...]  # most unlike first
    mix_of: str  # what was counted
    attendance: tuple[AttendanceFigures, ...]
    reasons: tuple[tuple[str, int], ...]  # why answers were not used, most frequent first
    left: tuple[MessageFigures, ...]
    domains: tuple[DomainFigures, ...]
    confusion: ConfusionFigures | None
    changed: tuple[SettingFigures, ...]
    unchanged: tuple[SettingFigures, ...]
    frames: tuple[FrameFigures, ...]
    facts: Mapping[str, str]  # of the environment, by what they are called
    protocol: str  # the sentence that the headline stands with
    scored_on: str
    scored_frames: int | None
    scored_round: int
    class_names: tuple[str, ...]  # in the order of columns `_C`
    critical_names: tuple[str, ...]
    colours: tuple[tuple[int, int, int], ...]
    by: str  # what domains are
    num_vehicles: int
    num_images: int | None
    command: str  # path of the run folder, for commands
    reason: str
    started: str  # ISO 8601, UTC; "" where it was not recorded
    intervals: IntervalFigures | None = None
    no_intervals: str = ""  # why there are none
    events: tuple[EventFigures, ...] = ()
    looks: tuple[LookFigures, ...] = ()  # least like the mean vehicle first
    looks_of: str = ""  # what was looked at; "" = nothing is known

    @property
    def mean_brightness(self) -> float:
        """Of the vehicles whose images' brightness is known, each counted once."""
        return sum(row.brightness for row in self.looks) / max(1, len(self.looks))

    @property
    def is_over(self) -> bool:
        """Whether the run came to an end of any kind."""
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
