"""Vehicles: scores on their frames, their data, and their participation."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from fleetseg.evaluation.scored import Scored
from fleetseg.federation.records import RoundRecord
from fleetseg.report.figures import AttendanceFigures, MixFigures, RoundFigures, VehicleFigures
from fleetseg.report.gather_scores import known
from fleetseg.runs.enrolled import Enrolled
from fleetseg.runs.report import RunReport

Counts = Mapping[str, npt.NDArray[np.int64]]
"""Pixels of each class by vehicle."""


def vehicle_figures(scored: Scored | None) -> tuple[VehicleFigures, ...]:
    """Rate the global model on every vehicle's own frames, worst vehicle first."""
    if scored is None:
        return ()
    personal = scored.by_client_personal
    rows = [
        VehicleFigures(
            name=name,
            miou=known(scores.miou),
            critical_miou=known(scores.critical_miou),
            iou_C=tuple(known(iou) for iou in scores.iou_C.tolist()),
            share_C=tuple((scores.conf_CC.sum(axis=1) / max(1, scores.num_pixels)).tolist()),
            personal_miou=known(personal[name].miou) if name in personal else None,
        )
        for name, scores in scored.by_client.items()
    ]
    return tuple(sorted(rows, key=lambda row: math.inf if row.miou is None else row.miou))


def counts_of(
    enrolled: Sequence[Enrolled], scored: Scored | None, num_classes: int
) -> tuple[Counts, str]:
    """Return pixels of each class by vehicle, and their source: enrolments, or scored frames.

    Run folders of earlier versions do not hold enrolments; the truth of the frames that vehicles
    were scored on gives nearly the same shares.
    """
    told = {e.client: np.array(e.histogram_C, np.int64) for e in enrolled if sum(e.histogram_C)}
    told = {name: counts_C for name, counts_C in told.items() if len(counts_C) == num_classes}
    if told:
        return told, "training labels, as vehicles enrolled"
    if scored is not None and scored.conf_by_client:
        truth = {name: conf_CC.sum(axis=1) for name, conf_CC in scored.conf_by_client.items()}
        return truth, f"labels of their {scored.clients_on}"
    return {}, ""


def mix_figures(counts: Counts, images: Mapping[str, int]) -> tuple[MixFigures, ...]:
    """Compare every vehicle's class shares with the fleet's, least similar first."""
    counts = {name: counts_C for name, counts_C in counts.items() if counts_C.sum() > 0}
    if len(counts) < 2:
        return ()
    total_C = np.sum(list(counts.values()), axis=0)
    fleet_C = total_C / total_C.sum()
    rows = []
    for name, counts_C in counts.items():
        share_C = counts_C / counts_C.sum()
        rows.append(
            MixFigures(
                name=name,
                images=images.get(name),
                distance=jensen_shannon(share_C, fleet_C),
                share_C=tuple(share_C.tolist()),
                log_ratio_C=tuple(
                    float(math.log2(own / all_)) if own > 0 and all_ > 0 else None
                    for own, all_ in zip(share_C, fleet_C, strict=True)
                ),
            )
        )
    return tuple(sorted(rows, key=lambda row: (-row.distance, row.name)))


def jensen_shannon(one_C: npt.NDArray[np.float64], other_C: npt.NDArray[np.float64]) -> float:
    """Return the Jensen-Shannon distance of two distributions, base 2, from 0 to 1.

    Source: D. Endres, J. Schindelin, "A new metric for probability distributions", 2003.

    >>> jensen_shannon(np.array([1.0, 0.0]), np.array([0.0, 1.0]))
    1.0
    """
    middle_C = (one_C + other_C) / 2
    parts = [
        own_C[own_C > 0] @ np.log2(own_C[own_C > 0] / middle_C[own_C > 0])
        for own_C in (one_C, other_C)
    ]
    return math.sqrt(max(0.0, float(sum(parts)) / 2))


def round_figures(records: Sequence[RoundRecord]) -> tuple[RoundFigures, ...]:
    """Extract from every round what the charts show."""
    return tuple(
        RoundFigures(
            round=record.round,
            asked=len(record.cohort),
            answered=len(record.accepted),
            failed=dict(Counter(failure.kind for failure in record.failures)),
            loss=record.loss,
            miou=record.miou,
            critical_miou=known(record.scored.critical_miou) if record.scored else None,
            seconds=record.seconds,
            training_seconds=record.training_seconds,
            mb_up=record.bytes_up / 1e6,
            mb_down=record.bytes_down / 1e6,
        )
        for record in records
    )


def failure_reasons(records: Sequence[RoundRecord], limit: int = 8) -> tuple[tuple[str, int], ...]:
    """Count the reasons for unused answers, the most frequent first."""
    told = Counter(f"{f.kind}: {f.reason}" for record in records for f in record.failures)
    return tuple(told.most_common(limit))


def attendance_figures(
    report: RunReport, images: Mapping[str, int]
) -> tuple[AttendanceFigures, ...]:
    """Describe every vehicle's participation, those with the most failures first."""
    told: dict[str, dict[int, str]] = {}
    for record in report.rounds:
        failed = {failure.client_id: failure.kind for failure in record.failures}
        for name in record.cohort:
            told.setdefault(name, {})[record.round] = failed.get(name, "spare")
        for name in record.accepted:
            told.setdefault(name, {})[record.round] = "answered"
    names = sorted({*told, *images})
    rows = [_attendance(name, told.get(name, {}), images.get(name)) for name in names]
    return tuple(sorted(rows, key=lambda row: (-sum(row.failed.values()), row.name)))


def _attendance(name: str, told: Mapping[int, str], images: int | None) -> AttendanceFigures:
    kinds = Counter(told.values())
    answered, spare = kinds.pop("answered", 0), kinds.pop("spare", 0)
    del spare  # a spare of over-selection that was not needed: no failure
    marks: list[tuple[int, int, str]] = []
    for round_, kind in sorted(told.items()):
        if marks and marks[-1][1] == round_ - 1 and marks[-1][2] == kind:
            marks[-1] = (marks[-1][0], round_, kind)
        else:
            marks.append((round_, round_, kind))
    return AttendanceFigures(name, images, len(told), answered, dict(kinds), tuple(marks))
