"""From run folders to all figures of a page."""

from __future__ import annotations

import shlex
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from fleetseg.errors import CheckpointError
from fleetseg.evaluation.protocol import Protocol
from fleetseg.hosts import given_path
from fleetseg.report import words
from fleetseg.report.figures import ReportFigures, RunFigures
from fleetseg.report.gather_events import event_figures
from fleetseg.report.gather_fleet import (
    attendance_figures,
    counts_of,
    failure_reasons,
    mix_figures,
    round_figures,
    vehicle_figures,
)
from fleetseg.report.gather_left import messages_sent
from fleetseg.report.gather_looks import look_figures, looks_of
from fleetseg.report.gather_pictures import frame_figures
from fleetseg.report.gather_scores import (
    KINDS,
    class_figures,
    confusion_figures,
    domain_figures,
    newest_scores,
    run_figures,
)
from fleetseg.report.gather_settings import setting_figures
from fleetseg.report.intervals import interval_figures, with_interval
from fleetseg.runs.comparable import common_protocol
from fleetseg.runs.comparison import Comparison, compare
from fleetseg.runs.enrolled import read_enrolled
from fleetseg.runs.folder import has_run
from fleetseg.runs.report import RunReport, read_run
from fleetseg.runs.row_names import row_names
from fleetseg.runs.vehicle_looks import read_looks

Names = Mapping[Path, str]
"""Display names of runs, by folder."""


@dataclass(frozen=True)
class Gathered:
    """All that a page is made from."""

    figures: ReportFigures
    comparison: Comparison | None  # if there are several runs


def gather(runs: Sequence[str | Path], despite: Collection[str] = ()) -> Gathered:
    """Read run folders; the first federated run is the subject of the page.

    A folder of run folders stands for the runs in it. Several runs must be finished, and scored in
    the same way, as for a comparison.

    Raises:
        CheckpointError: a folder holds no run, or one of several runs is unfinished.
        ConfigError: scores of several runs were taken in different ways.
    """
    reports = _read([given_path(path) for path in runs])
    comparison = _compared(reports, despite)
    names = row_names([(each.experiment, _alone(each)) for each in reports])
    named = dict(zip([each.path for each in reports], names, strict=True))
    subject = next((r for r in reports if not r.experiment.baseline.kind), reports[0])
    rest = [report for report in reports if report is not subject]
    return Gathered(_with_events_and_looks(_figures(subject, rest, named), subject), comparison)


def _with_events_and_looks(figures: ReportFigures, subject: RunReport) -> ReportFigures:
    looks = read_looks(subject.path)
    events, shown = event_figures(subject), look_figures(looks)
    return replace(figures, events=events, looks=shown, looks_of=looks_of(looks))


def _read(paths: Sequence[Path]) -> list[RunReport]:
    reports: dict[Path, RunReport] = {}
    for path in paths:
        inside = [path] if has_run(path) else sorted(p for p in path.glob("*") if has_run(p))
        if not inside:
            raise CheckpointError(
                "no run here", where=path, expected="a run folder, or a folder of such"
            )
        for each in inside:
            reports[each.resolve()] = read_run(each)
    return list(reports.values())


def _compared(reports: Sequence[RunReport], despite: Collection[str]) -> Comparison | None:
    """Compare all runs but those of single vehicles, which must be scored in the same way too.

    A vehicle alone has seen fewer domains than the fleet; that difference is the point of the
    baseline.
    """
    if len(reports) == 1:
        return None
    scored = {report.path: newest_scores(report)[0] for report in reports}
    known = {path: (one,) for path, one in scored.items() if one is not None}
    if any(report.experiment.baseline.kind == "local" for report in reports):
        common_protocol(known, {*despite, "seen", "unseen"})
    whole = [r.path for r in reports if r.experiment.baseline.kind != "local"]
    return compare(whole, despite=despite) if len(whole) > 1 else None


def _alone(report: RunReport) -> str:
    """Return the client that trained alone; "" for any other run."""
    if report.experiment.baseline.kind != "local" or not report.rounds:
        return ""
    return ", ".join(report.rounds[0].cohort)


def _figures(subject: RunReport, rest: Sequence[RunReport], named: Names) -> ReportFigures:
    run = run_figures(subject, named[subject.path])
    others = [report for report in rest if not report.experiment.baseline.kind]
    pooled, centralised, alone = _baselines(rest, run, named)
    scored, scored_round = newest_scores(subject)
    images = _images(subject)
    counts, mix_of = counts_of(read_enrolled(subject.path), scored, subject.space.num_classes)
    changed, unchanged = setting_figures([each.experiment for each in (subject, *others)])
    protocol = scored.protocol if scored else None
    figures = ReportFigures(
        run=run,
        others=tuple(run_figures(each, named[each.path]) for each in others),
        centralised=centralised,
        alone=alone,
        classes=class_figures(subject, centralised, alone),
        rounds=round_figures(subject.rounds),
        vehicles=vehicle_figures(scored),
        vehicles_on=scored.clients_on if scored else "",
        mix=mix_figures(counts, images),
        mix_of=mix_of,
        attendance=attendance_figures(subject, images),
        reasons=failure_reasons(subject.rounds),
        left=messages_sent(subject, scored),
        domains=domain_figures(subject, pooled),
        confusion=confusion_figures(scored.overall if scored else None),
        changed=changed,
        unchanged=unchanged,
        frames=frame_figures(subject.path, subject.space, len(subject.rounds)),
        facts=_facts(subject, centralised),
        protocol=protocol_sentence(protocol, run, scored_round),
        scored_on=_set_names(protocol),
        scored_frames=_frames(protocol),
        scored_round=scored_round,
        class_names=subject.space.classes,
        critical_names=subject.space.critical,
        colours=subject.space.colours,
        by=subject.experiment.evaluation.by,
        num_vehicles=_num_vehicles(subject, images),
        num_images=sum(images.values()) or None,
        command=shlex.quote(str(subject.path)),
        reason=subject.end.reason if subject.end else "",
        started=str(subject.environment.get("started", "")),
    )
    return _with_intervals(figures, subject, pooled)


def _with_intervals(
    figures: ReportFigures, subject: RunReport, pooled: RunReport | None
) -> ReportFigures:
    intervals, why_none = interval_figures(subject, pooled)
    if intervals is None:
        return replace(figures, no_intervals=why_none)
    names = list(figures.class_names)
    classes = tuple(with_interval(row, intervals, names.index(row.name)) for row in figures.classes)
    return replace(figures, classes=classes, intervals=intervals)


def _baselines(
    rest: Sequence[RunReport], run: RunFigures, named: Mapping[Path, str]
) -> tuple[RunReport | None, RunFigures | None, tuple[RunFigures, ...]]:
    """Return the centralised run, its figures, and the figures of every vehicle alone."""
    kinds = [(KINDS[report.experiment.baseline.kind], report) for report in rest]
    pooled = _nearest([each for kind, each in kinds if kind == "centralised"], run, named)
    alone = [
        run_figures(each, _alone(each) or named[each.path])
        for kind, each in kinds
        if kind == "alone"
    ]
    return pooled, run_figures(pooled, named[pooled.path]) if pooled else None, tuple(alone)


def _nearest(
    pooled: Sequence[RunReport], run: RunFigures, named: Mapping[Path, str]
) -> RunReport | None:
    """Choose the centralised run whose number of images is nearest to the fleet's."""

    def apart(report: RunReport) -> int:
        return abs(run_figures(report, named[report.path]).images - run.images)

    return min(pooled, key=apart, default=None)


def _images(report: RunReport) -> dict[str, int]:
    """Return how many images each vehicle trains on, from enrolments or else from the manifest."""
    enrolled = {each.client: each.images for each in read_enrolled(report.path)}
    if enrolled or report.manifest is None:
        return enrolled
    there = report.manifest.taking_part().clients
    return {name: len(entries) for name, entries in there.items()}


def _num_vehicles(report: RunReport, images: Mapping[str, int]) -> int:
    asked = {name for record in report.rounds for name in record.cohort}
    return len(asked | set(images))


def protocol_sentence(protocol: Protocol | None, run: RunFigures, round_: int) -> str:
    """Describe how the headline's figure was taken, in the sentence that follows it."""
    if protocol is None:
        return ""
    height, width = protocol.size_hw
    frames = _frames(protocol)
    named = _set_names(protocol)
    over = f"{words.counted(frames, 'frame')} ({named})" if frames else named
    norms = "" if protocol.norms == "running" else f", batch norms: {protocol.norms}"
    which = "the last round" if round_ == run.rounds else f"round {round_}"
    return (
        f"is the mean IoU of {words.number(len(protocol.classes))} classes, from one confusion "
        f"matrix summed over {over}, at {protocol.scored_at}, with the model "
        f"of {which}; the network saw {height} × {width} pixels{norms}."
    )


def _set_names(protocol: Protocol | None) -> str:
    return words.series([one.name for one in protocol.sets]) if protocol else ""


def _frames(protocol: Protocol | None) -> int | None:
    known = [one.frames for one in protocol.sets] if protocol else []
    there = [number for number in known if number is not None]
    return sum(there) if there and len(there) == len(known) else None


def _facts(report: RunReport, centralised: RunFigures | None) -> dict[str, str]:
    found = report.environment
    machine = [found.get("system"), f"{found.get('cores', '?')} cores", found.get("cpu_capability")]
    facts = {
        "fleetseg": str(found.get("fleetseg", "")),
        "Python, torch, numpy": ", ".join(
            str(found.get(name, "?")) for name in ("python", "torch", "numpy")
        ),
        "Machine": ", ".join(str(each) for each in machine if each),
        "Device, precision": f"{found.get('device', '?')}, {found.get('precision', '?')}",
        "Started": str(found.get("started", "")),
        "Model": report.end.model_sha256 if report.end else "",
        "Frames and who holds them": report.manifest.digest if report.manifest else "",
        "Experiment": report.experiment.digest,
        "Centralised model": centralised.model_sha256 if centralised else "",
    }
    return {name: text for name, text in facts.items() if text}
