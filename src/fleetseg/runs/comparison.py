"""`fleetseg.compare`: run folders in one table, if their scores were taken in the same way.

Runs that differ only by seed make one row: the mean and the sample standard deviation over models.
Within one model only classes are averaged: its ratios come from summed confusion matrices.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fleetseg.config import Experiment
from fleetseg.data.labels import LabelSpace
from fleetseg.errors import CheckpointError, ConfigError
from fleetseg.evaluation.protocol import Protocol
from fleetseg.evaluation.scored import Scored
from fleetseg.evaluation.scores import Scores
from fleetseg.hosts import given_path
from fleetseg.runs.comparable import common_protocol
from fleetseg.runs.figures import Spread, last_scored, spread
from fleetseg.runs.folder import has_run
from fleetseg.runs.records import effort, is_complete, traffic
from fleetseg.runs.report import RunReport, read_run
from fleetseg.runs.row_names import row_names
from fleetseg.text import listing

Spreads = Mapping[str, Spread | None]


@dataclass(frozen=True)
class ComparisonRow:
    """One experiment: its figures over seeds. IoUs are 0 to 1, megabytes are 1e6 bytes."""

    name: str
    runs: tuple[Path, ...]
    seeds: tuple[int, ...]
    miou: Spread | None  # None where there is nothing to rate, here and below
    critical_miou: Spread | None
    iou: Spreads  # of each class
    by_domain: Spreads  # mIoU on each domain's frames
    by_client: Spreads  # mIoU on each client's own frames; empty if they were not scored
    rounds: Spread
    steps: Spread  # gradient steps, all clients together
    images: Spread  # trained on
    mb_up: Spread | None  # from the clients to the server; a baseline sends nothing
    mb_down: Spread | None
    seconds: Spread  # of all rounds, by the engine's clock; virtual where faults are simulated
    critical: tuple[str, ...] = ()

    @property
    def worst_critical(self) -> tuple[str, Spread] | None:
        """The safety-critical class with the lowest mean IoU, and that IoU."""
        return _worst({name: self.iou.get(name) for name in self.critical})

    @property
    def worst_client(self) -> tuple[str, Spread] | None:
        """The client with the lowest mean mIoU, and that mIoU."""
        return _worst(self.by_client)


@dataclass(frozen=True)
class Comparison:
    """Runs side by side, scored in the same way."""

    rows: tuple[ComparisonRow, ...]
    space: LabelSpace
    protocol: Protocol | None  # of all; None if no run has scores
    last: int = 0  # figures are means over this many last scored rounds; 0 = of the final model
    clients_on: str = ""  # which frames the clients' figures are of
    notes: tuple[str, ...] = ()

    @property
    def domains(self) -> tuple[str, ...]:
        """All domains that were scored."""
        return tuple(sorted({domain for row in self.rows for domain in row.by_domain}))


def compare(
    runs: Sequence[str | Path] | str | Path, *, last: int = 0, despite: Collection[str] = ()
) -> Comparison:
    """Compare run folders; a folder of run folders (a sweep's) stands for its finished runs.

    Args:
        runs: the folders.
        last: average over this many last scored rounds instead of taking the final model.
        despite: fields in which protocols may differ: size_hw, norms, seen, unseen.

    Raises:
        CheckpointError: a folder holds no run, or an unfinished one.
        ConfigError: scores of different protocols; the same run twice; too few scored rounds.
    """
    if last < 0:
        raise ConfigError("unusable last", got=last, expected="0 (the final model) or more")
    given = [runs] if isinstance(runs, str | Path) else list(runs)
    reports, notes = _read([given_path(path) for path in given])
    scored = {report.path: _scored(report, last) for report in reports}
    protocol, differing = common_protocol(scored, despite)
    groups = _by_experiment(reports)
    names = row_names([(group[0].experiment, _alone(group[0])) for group in groups])
    rows = [_row(name, group, scored) for name, group in zip(names, groups, strict=True)]
    on = {s.clients_on for ones in scored.values() for s in ones} - {""}
    return Comparison(
        rows=tuple(rows),
        space=reports[0].space,
        protocol=protocol.over(protocol.rounds[-1:] * last) if protocol and last else protocol,
        last=last,
        clients_on=next(iter(on), ""),
        notes=(*notes, *differing, *_without_own_parts(reports)),
    )


def _read(paths: Sequence[Path]) -> tuple[list[RunReport], list[str]]:
    reports: dict[Path, RunReport] = {}
    notes: list[str] = []
    for path in paths:
        if has_run(path):
            reports[path.resolve()] = _over(read_run(path))
            continue
        inside = sorted(each for each in path.glob("*") if has_run(each))
        if not inside:
            raise CheckpointError(
                "no run here", where=path, expected="a run folder, or a folder of such"
            )
        for report in map(read_run, inside):
            if is_complete(report.end):
                reports[report.path.resolve()] = report
            else:
                notes.append(f"left out {report.path}: {_how_far(report)}")
    if not reports:
        raise CheckpointError("no run is finished", where=paths[0], got="; ".join(notes))
    return list(reports.values()), notes


def _without_own_parts(reports: Sequence[RunReport]) -> list[str]:
    """Note figures of vehicles that were not taken with the vehicles' own parts of the model."""
    names = [
        report.path.name
        for report in reports
        if report.experiment.federation.sharing not in ("all", "trained")
        and report.end
        and report.end.scored
        and report.end.scored.personal
    ]
    if not names:
        return []
    return [
        f"single vehicles of {listing(names)} are scored with a newcomer's model: the shared part "
        "with the other parts as initialised; the run's own scores show how their own models do"
    ]


def _over(report: RunReport) -> RunReport:
    if not is_complete(report.end):
        raise CheckpointError(
            "this run is not finished",
            where=report.path,
            got=_how_far(report),
            cure=f"Resume it: fleetseg run --resume --out {shlex.quote(str(report.path))}",
        )
    return report


def _how_far(report: RunReport) -> str:
    why = f" ({report.end.reason})" if report.end else ""
    return f"{len(report.rounds)} of {report.experiment.federation.rounds} rounds{why}"


def _scored(report: RunReport, last: int) -> tuple[Scored, ...]:
    """Return the scores that a run's figures come from: of its final model, or its last rounds."""
    if not last:
        end = report.end
        return (end.scored,) if end and end.scored else ()
    scored = last_scored(report.rounds, last)
    if scored is None:
        number = sum(record.scored is not None for record in report.rounds)
        raise ConfigError(
            "fewer scored rounds than the mean needs",
            where=report.path,
            got=number,
            expected=f"{last} or more",
            cure="Ask for fewer (--last), or score more often (evaluation.every)",
        )
    return tuple(scored)


def _by_experiment(reports: Sequence[RunReport]) -> list[list[RunReport]]:
    groups: dict[tuple[str, str], list[RunReport]] = {}
    for report in reports:
        group = groups.setdefault((_but_for_the_seed(report.experiment), _alone(report)), [])
        for other in group:
            if other.experiment.seed == report.experiment.seed:
                raise ConfigError(
                    "the same experiment with the same seed is given twice",
                    where=report.path,
                    got=f"the same as {other.path}",
                    cure="Leave one of them out",
                )
        group.append(report)
    return [sorted(group, key=lambda each: each.experiment.seed) for group in groups.values()]


def _but_for_the_seed(experiment: Experiment) -> str:
    """Return a digest of what runs of several seeds have in common."""
    changes: dict[str, object] = {"seed": 0}
    if experiment.baseline.kind == "centralised":
        # It depends on how often each client was selected, and so on the seed.
        changes["training"] = experiment.training.model_copy(update={"local_steps": 0})
    return experiment.model_copy(update=changes).digest


def _alone(report: RunReport) -> str:
    """Return the client that trained alone; "" for any other run."""
    if report.experiment.baseline.kind != "local" or not report.rounds:
        return ""
    return ", ".join(report.rounds[0].cohort)


def _row(
    name: str, group: Sequence[RunReport], scored: Mapping[Path, tuple[Scored, ...]]
) -> ComparisonRow:
    space = group[0].space
    of_runs = [scored[report.path] for report in group]
    ends = [(r.end.scored,) if r.end and r.end.scored else () for r in group]
    spent = [effort(report.rounds) for report in group]
    is_fleet = not group[0].experiment.baseline.kind
    sent = [traffic(report.rounds) for report in group if is_fleet]
    return ComparisonRow(
        name=name,
        runs=tuple(report.path for report in group),
        seeds=tuple(report.experiment.seed for report in group),
        miou=_over_models(of_runs, lambda s: s.miou),
        critical_miou=_over_models(of_runs, lambda s: s.critical_miou),
        iou={
            each: _over_models(of_runs, lambda s, at=at: _iou(s, at))  # type: ignore[misc]
            for at, each in enumerate(space.classes)
        },
        by_domain=_named(of_runs, lambda s: s.by_domain),
        by_client=_named(ends, lambda s: s.by_client),
        rounds=_sure([len(report.rounds) for report in group]),
        steps=_sure([each.steps for each in spent]),
        images=_sure([each.images_seen for each in spent]),
        mb_up=spread([each.bytes_up / 1e6 for each in sent]),
        mb_down=spread([each.bytes_down / 1e6 for each in sent]),
        seconds=_sure([sum(r.seconds for r in report.rounds) for report in group]),
        critical=space.critical,
    )


def _over_models(
    runs: Sequence[Sequence[Scored]], figure: Callable[[Scored], float | None]
) -> Spread | None:
    """Average over seeds, each by the mean of its rounds; for a single seed, over its rounds."""
    over_rounds = [spread([figure(scored) for scored in of_run]) for of_run in runs]
    if len(over_rounds) == 1:
        return over_rounds[0]
    return spread([None if one is None else one.mean for one in over_rounds])


def _named(
    runs: Sequence[Sequence[Scored]], parts: Callable[[Scored], Mapping[str, Scores]]
) -> dict[str, Spread | None]:
    names = sorted({name for of_run in runs for scored in of_run for name in parts(scored)})
    return {
        name: _over_models(
            runs,
            lambda s, name=name: parts(s)[name].miou if name in parts(s) else None,  # type: ignore[misc]
        )
        for name in names
    }


def _iou(scored: Scored, at: int) -> float | None:
    return None if scored.overall is None else float(scored.overall.iou_C[at])


def _sure(figures: Sequence[float]) -> Spread:
    found = spread(figures)
    assert found is not None
    return found


def _worst(figures: Spreads) -> tuple[str, Spread] | None:
    known = [(name, each) for name, each in figures.items() if each is not None]
    return min(known, key=lambda pair: pair[1].mean) if known else None
