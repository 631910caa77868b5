"""When a run ends, as a pure function of the experiment and the committed rounds."""

from __future__ import annotations

from collections.abc import Sequence

from fleetseg.config import Experiment
from fleetseg.federation.records import RoundRecord

ENDS = ("rounds", "target", "plateau", "time", "megabytes", "collapsed")
"""Reasons returned by `stop_reason` and by a guard; a run with another reason was broken off."""


def stop_reason(
    experiment: Experiment, rounds_done: int, records: Sequence[RoundRecord]
) -> str | None:
    """Return one of `ENDS`, or None to go on."""
    stop = experiment.stop
    mious = _comparable(records)
    minutes = sum(r.seconds for r in records) / 60
    megabytes = sum(r.bytes_down + r.bytes_up for r in records) / 1e6
    if stop.target_miou and mious and mious[-1] >= stop.target_miou:
        return "target"
    if rounds_done >= experiment.federation.rounds:
        return "rounds"
    if stop.patience and _evaluations_since_best(mious, stop.min_gain) >= stop.patience:
        return "plateau"
    if stop.minutes and minutes >= stop.minutes:
        return "time"
    if stop.megabytes and megabytes >= stop.megabytes:
        return "megabytes"
    return None


def _comparable(records: Sequence[RoundRecord]) -> list[float]:
    """Return the mIoUs that were measured on all test frames that the run has been scored on.

    Without the frames of a client that did not answer, a score is of a different set, and a set
    that happens to be easier must not end a run.
    """
    scored = [r.scored for r in records if r.scored is not None and r.scored.miou is not None]
    everything = frozenset(name for s in scored for name in s.scored_on)
    return [s.miou or 0.0 for s in scored if frozenset(s.scored_on) == everything and not s.missing]


def _evaluations_since_best(mious: Sequence[float], min_gain: float) -> int:
    """Return the number of evaluations since one last beat the best by at least `min_gain`.

    >>> _evaluations_since_best([0.1, 0.3, 0.3, 0.2], 0.01)
    2
    """
    best, waited = float("-inf"), 0
    for miou in mious:
        if miou >= best + min_gain:
            best, waited = miou, 0
        else:
            waited += 1
    return waited
