"""Scores of models: runs as rows, classes, domains, confusion; all from int64 matrices."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from fleetseg.evaluation.scored import Scored
from fleetseg.evaluation.scores import Scores
from fleetseg.report.figures import (
    ClassFigures,
    ConfusionFigures,
    DomainFigures,
    Kind,
    Ratio,
    RunFigures,
)
from fleetseg.runs.records import effort, traffic
from fleetseg.runs.report import RunReport

KINDS: Mapping[str, Kind] = {"": "federated", "centralised": "centralised", "local": "alone"}
"""The kind of a run, by its experiment's baseline."""


def known(value: float | None) -> Ratio:
    """Return a ratio, or None for NaN: nothing to rate."""
    return None if value is None or math.isnan(value) else float(value)


def newest_scores(report: RunReport) -> tuple[Scored | None, int]:
    """Return the newest scores of a run, finished or not, and the round of the scored model."""
    if report.end is not None and report.end.scored is not None:
        return report.end.scored, report.end.scored_round
    scored = [record for record in report.rounds if record.scored is not None]
    return (scored[-1].scored, scored[-1].round) if scored else (None, 0)


def run_figures(report: RunReport, name: str) -> RunFigures:
    """Summarise one run."""
    scored, _ = newest_scores(report)
    overall = scored.overall if scored else None
    spent, sent = effort(report.rounds), traffic(report.rounds)
    kind = KINDS[report.experiment.baseline.kind]
    is_fleet = kind == "federated"
    scored_rounds = [(r.round, r.scored) for r in report.rounds if r.scored is not None]
    return RunFigures(
        name=name,
        kind=kind,
        seed=report.experiment.seed,
        miou=known(overall.miou) if overall else None,
        critical_miou=known(overall.critical_miou) if overall else None,
        iou_C=tuple(known(iou) for iou in overall.iou_C.tolist()) if overall else (),
        images=spent.images_seen,
        steps=spent.steps,
        steps_in_a_row=spent.critical_path_steps,
        bytes_up=sent.bytes_up if is_fleet else 0,
        bytes_down=sent.bytes_down if is_fleet else 0,
        rounds=len(report.rounds),
        planned_rounds=report.experiment.federation.rounds,
        seconds=sum(record.seconds for record in report.rounds),
        model_sha256=report.end.model_sha256 if report.end else "",
        curve=tuple((n, each.miou) for n, each in scored_rounds if each.miou is not None),
        losses=tuple((r.round, r.loss) for r in report.rounds if r.loss is not None),
    )


def class_figures(
    report: RunReport, centralised: RunFigures | None, alone: Sequence[RunFigures]
) -> tuple[ClassFigures, ...]:
    """Rate every class, worst gap to centralised first; without one, lowest IoU first."""
    scored, _ = newest_scores(report)
    if scored is None or scored.overall is None:
        return ()
    overall, space = scored.overall, report.space
    share_C = overall.conf_CC.sum(axis=1) / max(1, overall.num_pixels)
    history = [(r.round, r.scored.overall) for r in report.rounds if r.scored and r.scored.overall]
    rows = [
        ClassFigures(
            name=name,
            critical=name in space.critical,
            iou=known(overall.iou_C[at]),
            share=float(share_C[at]),
            centralised=centralised.iou_C[at] if centralised and centralised.iou_C else None,
            alone=mean([run.iou_C[at] for run in alone if run.iou_C]),
            history=tuple((n, known(scores.iou_C[at])) for n, scores in history),
        )
        for at, name in enumerate(space.classes)
    ]
    if any(row.gap is not None for row in rows):
        return tuple(sorted(rows, key=lambda row: math.inf if row.gap is None else row.gap))
    return tuple(sorted(rows, key=lambda row: math.inf if row.iou is None else row.iou))


def mean(values: Sequence[Ratio]) -> Ratio:
    """Return the mean over models; None if there are none."""
    there = [value for value in values if value is not None]
    return math.fsum(there) / len(there) if there else None


def domain_figures(report: RunReport, centralised: RunReport | None) -> tuple[DomainFigures, ...]:
    """Rate every domain: seen domains first, the lowest mIoU of each side last."""
    scored, _ = newest_scores(report)
    if scored is None:
        return ()
    beside = newest_scores(centralised)[0] if centralised else None
    others = beside.by_domain if beside else {}
    rows = [
        DomainFigures(
            name=name,
            seen=None if scored.seen_domains is None else name in scored.seen_domains,
            miou=known(scores.miou),
            critical_miou=known(scores.critical_miou),
            centralised=known(others[name].miou) if name in others else None,
        )
        for name, scores in scored.by_domain.items()
    ]
    return tuple(sorted(rows, key=lambda row: (row.seen is False, -(row.miou or 0.0), row.name)))


def confusion_figures(scores: Scores | None) -> ConfusionFigures | None:
    """Return the share of each true class's pixels by prediction."""
    if scores is None:
        return None
    conf_CC = scores.conf_CC.astype(np.float64)
    true_C, predicted_C = conf_CC.sum(axis=1), conf_CC.sum(axis=0)
    found_C = np.where(true_C > 0, scores.accuracy_C, 2.0)  # those without pixels last
    order = np.argsort(found_C, kind="stable")
    share_CC = conf_CC / np.maximum(true_C, 1)[:, None]
    hits_C = np.diag(conf_CC)
    return ConfusionFigures(
        classes=tuple(scores.space.classes[k] for k in order),
        share_CC=tuple(tuple(share_CC[row, order].tolist()) for row in order),
        precision_C=tuple(
            float(hits_C[k] / predicted_C[k]) if predicted_C[k] else None for k in order
        ),
    )
