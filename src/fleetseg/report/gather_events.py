"""Events of a run that are marked on its curves.

Only events that the run folder records: rounds without enough answers, vehicles that changed
clusters, scores that could not be taken, stops and resumptions, settings that changed on the way,
and a model that was not published.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from fleetseg.evaluation.scored import Scored
from fleetseg.federation.records import RoundRecord
from fleetseg.learning.schedules import first_round_after
from fleetseg.report import words
from fleetseg.report.figures import EventFigures
from fleetseg.runs.report import RunReport
from fleetseg.runs.safety import COLLAPSED
from fleetseg.runs.starts import read_resumes

MOST = 12
"""If there are more events, the last ones are counted instead of marked."""


def event_figures(report: RunReport) -> tuple[EventFigures, ...]:
    """List the events in the order of rounds; the events of one round are joined into one."""
    if not report.rounds:
        return ()
    last = report.rounds[-1].round
    told: dict[int, list[str]] = {}
    for source in (_settings, _resumes, _without_quorum, _moved, _unscored, _ended):
        for round_, text in source(report):
            told.setdefault(min(max(1, round_), last), []).append(text)
    events = [EventFigures(n, "; ".join(texts)) for n, texts in sorted(told.items())]
    if len(events) <= MOST:
        return tuple(events)
    rest = len(events) - (MOST - 1)
    later = words.counted(rest - 1, "later round")
    text = f"{events[MOST - 1].text}; the events of {later} are not listed"
    return (*events[: MOST - 1], EventFigures(events[MOST - 1].round, text))


def _settings(report: RunReport) -> Iterator[tuple[int, str]]:
    training, rounds = report.experiment.training, report.experiment.federation.rounds
    reached = report.rounds[-1].round
    switches = []
    if training.warmup_rounds:
        switches.append((training.warmup_rounds + 1, "the learning-rate warm-up is over"))
    if training.freeze_bn_after < 1:
        fixed = "batch norms train with the fleet’s statistics from here on"
        switches.append((first_round_after(training.freeze_bn_after, rounds), fixed))
    if training.schedule == "step_fedseg":
        switches.append((first_round_after(2 / 3, rounds), "the learning rate falls to a tenth"))
    yield from (each for each in switches if 1 < each[0] <= reached)


def _resumes(report: RunReport) -> Iterator[tuple[int, str]]:
    for resume in read_resumes(report.path):
        if resume.after_round >= report.rounds[-1].round:
            continue  # no round has been completed since
        when = f" ({resume.at[:16].replace('T', ' ')} UTC)" if resume.at else ""
        yield resume.after_round + 1, f"the run had been stopped, and was resumed here{when}"


def _without_quorum(report: RunReport) -> Iterator[tuple[int, str]]:
    numbers = [record.round for record in report.rounds if not record.quorum and record.cohort]
    for first, last in stretches(numbers):
        until = "" if first == last else f", until round {last}"
        yield first, f"too few usable answers, and the model was left unchanged{until}"


def stretches(numbers: Sequence[int]) -> list[tuple[int, int]]:
    """Join consecutive numbers.

    >>> stretches([2, 3, 4, 9])
    [(2, 4), (9, 9)]
    """
    starts = [n for n in numbers if n - 1 not in numbers]
    ends = [n for n in numbers if n + 1 not in numbers]
    return list(zip(starts, ends, strict=True))


def _moved(report: RunReport) -> Iterator[tuple[int, str]]:
    """Report vehicles that were in another cluster when they last took part."""
    known: dict[str, int] = {}
    for record in report.rounds:
        changed = [
            f"{name} ({known[name] + 1} to {cluster + 1})"
            for name, cluster in sorted(record.clusters.items())
            if known.get(name, cluster) != cluster
        ]
        if changed:
            yield record.round, f"moved to another cluster: {words.series(changed, 3)}"
        known |= record.clusters


def _unscored(report: RunReport) -> Iterator[tuple[int, str]]:
    unscored = [record for record in report.rounds if record.unscored]
    for record in unscored[:1]:
        more = len(unscored) - 1
        also = f", and {words.counted(more, 'later round')}" if more else ""
        yield record.round, f"could not be scored{also}: {record.unscored}"


def _ended(report: RunReport) -> Iterator[tuple[int, str]]:
    end = report.end
    if end is None:
        return
    if end.reason == COLLAPSED:
        yield end.round, "the run was ended: its predictions had shrunk to few classes"
    if (newest := _set_back(report.rounds, end.scored, end.scored_round)) is not None:
        whose = "the model that training started from" if not end.scored_round else "this model"
        yield end.scored_round, f"{whose} was published, because that of round {newest} was unsafe"


def _set_back(
    rounds: Sequence[RoundRecord], scored: Scored | None, scored_round: int
) -> int | None:
    """Return the newest scored round if an earlier model was published in its place."""
    newest = max((record.round for record in rounds if record.scored is not None), default=0)
    return newest if scored is not None and scored_round < newest else None
