"""How much a score depends on the choice of frames: a bootstrap over blocks of frames.

B. Efron, R. Tibshirani, "An Introduction to the Bootstrap" (1993), chapters 8.6 (blocks) and 13
(percentiles): blocks of consecutive frames are drawn with replacement, their counts are summed, and
ratios are taken of the sums. Two runs that were scored on the same frames are resampled together.

Suffixes: S draws, U blocks, C classes; 3 = right, true, predicted pixels.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import starmap

import numpy as np
import numpy.typing as npt

from fleetseg import rng
from fleetseg.data.labels import LabelSpace
from fleetseg.report import words
from fleetseg.report.figures import ClassFigures, Interval, IntervalFigures, ReportFigures
from fleetseg.report.gather_scores import newest_scores
from fleetseg.runs.image_counts import BLOCK, ImageCounts, read_counts
from fleetseg.runs.report import RunReport

CONFIDENCE, DRAWS = 0.95, 2_000
FEWEST = 8
"""With fewer blocks, an interval would claim more than is known."""
_AT_A_TIME = 250  # draws: bounds the memory

Floats = npt.NDArray[np.float64]


def interval_figures(
    subject: RunReport, centralised: RunReport | None
) -> tuple[IntervalFigures | None, str]:
    """Return the intervals of a run's newest scores, or why there are none."""
    own = counts_of_newest(subject)
    if own is None:
        return None, "what each frame contributed to this score is not known here"
    blocks = int(own.block_N.max()) + 1
    if blocks < FEWEST:
        return None, f"there are too few blocks of frames ({blocks} of {FEWEST})"
    pooled = counts_of_newest(centralised) if centralised else None
    if pooled is not None and not own.same_frames(pooled):
        pooled = None
    iou_SC = drawn_iou(own.parts_U3C)
    gap_SC = None if pooled is None else drawn_iou(pooled.parts_U3C)
    space = subject.space
    means = [_means(iou_SC, space), None if gap_SC is None else _means(gap_SC, space)]
    assert means[0] is not None
    gaps: list[Interval | None] = []
    if gap_SC is not None and means[1] is not None:
        pairs = [*zip(means[0], means[1], strict=True), *zip(iou_SC.T, gap_SC.T, strict=True)]
        gaps = list(starmap(lambda one, other: interval(one - other), pairs))
    return IntervalFigures(
        blocks=blocks,
        frames=len(own.block_N),
        draws=DRAWS,
        confidence=CONFIDENCE,
        miou=interval(means[0][0]),
        critical_miou=interval(means[0][1]),
        iou_C=tuple(map(interval, iou_SC.T)),
        gap_miou=gaps[0] if gaps else None,
        gap_critical_miou=gaps[1] if gaps else None,
        gap_C=tuple(gaps[2:]),
    ), ""


def with_interval(row: ClassFigures, intervals: IntervalFigures, class_id: int) -> ClassFigures:
    """Add to a class the intervals of its IoU and of its gap."""
    gap = intervals.gap_C[class_id] if intervals.gap_C else None
    return replace(row, interval=intervals.iou_C[class_id], gap_interval=gap)


def about_intervals(f: ReportFigures) -> str:
    """Explain the intervals, or why there are none."""
    if not f.is_scored:
        return ""
    if f.intervals is None:
        return f"There are no intervals: {f.no_intervals}."
    sure, drawn = words.percent(f.intervals.confidence), f.intervals
    gap = " For the gap, both runs are resampled together; bold excludes zero." * bool(drawn.gap_C)
    return (
        f"Thin lines are {sure} intervals from {drawn.draws:,} resamples of the {drawn.frames:,} "
        f"frames, in {drawn.blocks:,} blocks of up to {words.number(BLOCK)} consecutive frames of "
        f"one drive. They cover the choice of frames, not of the seed.{gap}"
    )


def counts_of_newest(report: RunReport) -> ImageCounts | None:
    """Return the frame counts of a run's newest scores; None if they are not known.

    Counts of another round's model, or of other frames, do not qualify.
    """
    scored, round_ = newest_scores(report)
    counts = read_counts(report.path)
    if scored is None or scored.overall is None or counts is None or counts.round != round_:
        return None
    conf_CC = scored.overall.conf_CC
    parts_3C = np.stack([np.diag(conf_CC), conf_CC.sum(axis=1), conf_CC.sum(axis=0)])
    return counts if np.array_equal(counts.parts_N3C.sum(axis=0), parts_3C) else None


def drawn_iou(parts_U3C: npt.NDArray[np.int64]) -> Floats:
    """Return the IoU of each class in each draw, (S, C); NaN where it has no union.

    Each draw has as many blocks as there are; for a given number of blocks the draws are always the
    same.
    """
    return np.concatenate(list(_drawn(parts_U3C)))


def _drawn(parts_U3C: npt.NDArray[np.int64]) -> Iterator[Floats]:
    num_blocks = len(parts_U3C)
    generator = rng.generator(0, num_blocks, "", "intervals of scores")
    flat = parts_U3C.reshape(num_blocks, -1).astype(np.float64)
    shares = np.full(num_blocks, 1 / num_blocks)
    for start in range(0, DRAWS, _AT_A_TIME):
        size = min(_AT_A_TIME, DRAWS - start)
        times_SU = generator.multinomial(num_blocks, shares, size=size)
        # Sums of counts stay below 2^53, so they are exact.
        sums_S3C = (times_SU @ flat).reshape(-1, *parts_U3C.shape[1:])
        hits_SC, true_SC, predicted_SC = (sums_S3C[:, k] for k in range(3))
        union_SC = true_SC + predicted_SC - hits_SC
        iou_SC = np.full(hits_SC.shape, np.nan)
        np.divide(hits_SC, union_SC, out=iou_SC, where=union_SC > 0)
        yield iou_SC


def _means(iou_SC: Floats, space: LabelSpace) -> tuple[Floats, Floats]:
    """Return the means over all classes, and over the safety-critical ones, of each draw."""
    critical = [space.classes.index(name) for name in space.critical]
    return _mean(iou_SC), _mean(iou_SC[:, critical])


def _mean(iou_SC: Floats) -> Floats:
    known_SC = ~np.isnan(iou_SC)
    count_S = known_SC.sum(axis=1)
    mean_S = np.full(len(iou_SC), np.nan)
    total_S = np.where(known_SC, iou_SC, 0).sum(axis=1)
    np.divide(total_S, count_S, out=mean_S, where=count_S > 0)
    return mean_S


def interval(values_S: Floats) -> Interval | None:
    """Return the percentile interval of the draws; None if no draw has a value.

    >>> interval(np.arange(2001.0))
    Interval(low=50.0, high=1950.0)
    """
    known_S = values_S[~np.isnan(values_S)]
    if not len(known_S):
        return None
    tail = round(100 * (1 - CONFIDENCE) / 2, 9)
    low, high = np.percentile(known_S, [tail, 100 - tail]).tolist()
    return Interval(low, high)
