"""The state of a watched run: what has changed in its folder, and a sentence about it."""

from __future__ import annotations

import hashlib
import json
import os
import platform
from dataclasses import dataclass
from pathlib import Path

from fleetseg.errors import CheckpointError, FleetSegError
from fleetseg.evaluation.scored import Scored
from fleetseg.federation.records import RoundRecord
from fleetseg.runs.kept_frames import FOLDER as PICTURES
from fleetseg.runs.lock import LOCK
from fleetseg.runs.report import RunReport, read_run

_FILES = ("experiment.toml", "rounds.jsonl")
_ENDED = {
    "rounds": "all rounds are done",
    "target": "it has reached its target",
    "plateau": "it no longer improves",
    "time": "its time is up",
    "megabytes": "its traffic budget is spent",
    "collapsed": "its model had collapsed",
    "interrupted": "it was interrupted",
    "quorum-lost": "too few updates were usable",
}


@dataclass(frozen=True)
class RunState:
    """What a page needs in order to show the current state of a run."""

    version: str = ""  # differs whenever the page's content may differ
    sentence: str = ""
    is_over: bool = False
    at_work: bool = True
    last: RoundRecord | None = None  # the newest round

    @property
    def word(self) -> str:
        """The state in one word."""
        return "Over" if self.is_over else "Live" if self.at_work else "Stopped"


def state_of(folder: Path, known: RunState) -> RunState:
    """Read the state of a run folder; if it cannot be read, the sentence says so.

    The known state is returned if nothing has changed, because reading a long run takes a while.
    """
    at_work = is_at_work(folder)
    version = _version(folder, at_work)
    if version == known.version:
        return known
    try:
        report = read_run(folder)
    except FleetSegError as error:
        return RunState(version, f"The run cannot be read: {error}", at_work=at_work)
    last = report.rounds[-1] if report.rounds else None
    told = sentence(report, at_work=at_work)
    return RunState(version, told, report.end is not None, at_work, last)


def sentence(report: RunReport, *, at_work: bool) -> str:
    """Say how far a run is, or how it ended."""
    planned = report.experiment.federation.rounds
    done = report.rounds[-1].round if report.rounds else 0
    how_far = f"round {done} of {planned}"
    if report.end is not None:
        why = _ENDED.get(report.end.reason, report.end.reason)
        return f"The run is over, {why}: {how_far}{_miou(report.end.scored)}"
    if not at_work:
        return f"No process is working on this run: {how_far}"
    if not report.rounds:
        return f"Working on round 1 of {planned}"
    scored = [record.scored for record in report.rounds if record.scored is not None]
    return f"{how_far.capitalize()} is done{_miou(scored[-1] if scored else None)}"


def require_run(folder: Path) -> None:
    """Refuse to watch a folder that is not a run folder.

    Raises:
        CheckpointError: naming the folder, and what to do.
    """
    if not (folder / "experiment.toml").is_file():
        raise CheckpointError(
            "there is no run to watch",
            where=folder,
            expected="a run folder with experiment.toml",
            cure="Start the run first: fleetseg run EXPERIMENT.toml --out DIR",
        )


def is_at_work(folder: Path) -> bool:
    """Say whether a process is using a run folder; a process on another host is assumed to be.

    The lock itself is not tried, because a run that starts at that moment would be refused.
    """
    try:
        holder = json.loads((folder / LOCK).read_text(encoding="utf-8"))
        if holder["host"] != platform.node():
            return True
        os.kill(int(holder["pid"]), 0)
    except PermissionError:
        return True  # the process exists but belongs to another user
    except (OSError, ValueError, KeyError, TypeError):
        return False
    return True


def _miou(scored: Scored | None) -> str:
    return "" if scored is None or scored.miou is None else f", mIoU {scored.miou:.3f}"


def _version(folder: Path, at_work: bool) -> str:
    told = [str(at_work)]
    for path in (*(folder / name for name in _FILES), folder / PICTURES):
        try:
            found = path.stat()
        except OSError:
            continue
        told.append(f"{path.name} {found.st_mtime_ns} {found.st_size}")
    return hashlib.blake2b("\n".join(told).encode(), digest_size=8).hexdigest()
