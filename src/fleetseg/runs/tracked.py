"""Hand a run's rounds to its trackers as they are committed; rounds.jsonl stays the truth.

A tracker holds a copy. It receives each round once, over all starts of the run:
`tracking/steps.json` holds each tracker's progress, and a resumed run first catches up. A tracker
that fails is dropped with one warning until the run is started again, and never ends the run.
"""

from __future__ import annotations

import json
import math
import secrets
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from fleetseg.config import Experiment
from fleetseg.data.sample import Image_HWC
from fleetseg.evaluation.scored import Scored
from fleetseg.failures import FailureKind
from fleetseg.federation.records import RoundRecord
from fleetseg.federation.rounds import Watcher
from fleetseg.files import write_atomic
from fleetseg.tracking.tracker import Tracked, Tracker
from fleetseg.tracking.trackers import TRACKERS

FOLDER = "tracking"
"""Folder in a run folder: the trackers' progress, and files that trackers keep there."""
STEPS = "steps.json"
PICTURE = "scored frames"

Picture = Callable[[RoundRecord], Image_HWC | None]
"""Draws a round's predictions of some scored frames; None = there is no picture of them."""


@dataclass
class Tracking:
    """The working trackers of one run."""

    folder: Path
    records: Callable[[], Sequence[RoundRecord]]  # all committed rounds, oldest first
    warn: Callable[[str], None]  # called with each failure, once per tracker
    notes: list[str]  # where to look, and what failed
    _run: str = ""
    _steps: dict[str, int] = field(default_factory=dict)
    _trackers: dict[str, Tracker] = field(default_factory=dict)
    _picture: Picture = lambda record: None

    def open(self, experiment: Experiment, run_folder: Path) -> None:
        """Open the trackers that the experiment names; each continues after its last round."""
        wanted = experiment.tracking.to
        if not wanted:
            return
        try:
            self.folder.mkdir(exist_ok=True)
            self._read_steps()
        except Exception as error:
            self._warn(f"no tracking: {_told(error)}")
            return
        tracked = Tracked(
            folder=self.folder,
            run=self._run,
            name=run_folder.resolve().name,
            group=experiment.name,
            project=experiment.tracking.project,
            settings=experiment.model_dump(mode="json"),
        )
        for name in dict.fromkeys(wanted):
            try:
                opened = TRACKERS[name](replace(tracked, step=self._steps.get(name, 0)))
            except Exception as error:
                self._warn(f"{name} does not track this run: {_told(error)}")
                continue
            self._trackers[name] = opened
            self.notes.append(f"tracked by {name}: {opened.where}")

    def watcher(self, watcher: Watcher, picture: Picture) -> Watcher:
        """Return a watcher that also tracks the run; `picture` draws a scored round."""
        if not self._trackers:
            return watcher
        self._picture = picture

        def closed(record: RoundRecord) -> None:
            self._catch_up()
            watcher.round_closed(record)

        return replace(watcher, round_closed=closed)

    def close(self) -> None:
        """Hand over what is left, such as a last round that was scored after a resume."""
        records = list(self.records())
        if records and records[-1].was_scored:
            self._catch_up()
        for name, tracker in list(self._trackers.items()):
            self._try(name, tracker.close)
        self._trackers.clear()

    def _catch_up(self) -> None:
        if not self._trackers:
            return
        behind = min(self._steps.get(name, 0) for name in self._trackers)
        try:
            for record in self.records():
                if record.round > behind:
                    self._hand_over(record)
        finally:
            self._write_steps()

    def _hand_over(self, record: RoundRecord) -> None:
        """Give a round to each tracker that lacks it."""
        picture_HWC = self._drawn(record)
        for name, tracker in list(self._trackers.items()):
            if record.round <= self._steps.get(name, 0):
                continue
            if self._try(name, partial(_give, tracker, record, picture_HWC)):
                self._steps[name] = record.round

    def _drawn(self, record: RoundRecord) -> Image_HWC | None:
        try:
            return self._picture(record)
        except Exception as error:
            self._picture = lambda record: None
            self._warn(f"pictures are no longer tracked: {_told(error)}")
            return None

    def _try(self, name: str, work: Callable[[], None]) -> bool:
        try:
            work()
        except Exception as error:
            self._trackers.pop(name, None)
            self._warn(f"{name} is given up until the run is resumed: {_told(error)}")
            return False
        return True

    def _warn(self, text: str) -> None:
        self.notes.append(text)
        self.warn(f"note: {text}")

    def _read_steps(self) -> None:
        path = self.folder / STEPS
        kept: Mapping[str, Any] = {}
        if path.is_file():
            kept = json.loads(path.read_text(encoding="utf-8"))
        self._run = str(kept.get("run") or secrets.token_hex(8))
        self._steps = {str(name): int(step) for name, step in kept.get("steps", {}).items()}
        self._write()

    def _write_steps(self) -> None:
        try:
            self._write()
        except Exception as error:
            # Progress that is not saved would have a later start hand rounds over again.
            self._warn(f"tracking ends here: {_told(error)}")
            for tracker in self._trackers.values():
                with suppress(Exception):
                    tracker.close()
            self._trackers.clear()

    def _write(self) -> None:
        kept = {"run": self._run, "steps": self._steps}
        write_atomic(self.folder / STEPS, json.dumps(kept) + "\n")


@contextmanager
def tracking(
    experiment: Experiment,
    run_folder: Path,
    records: Callable[[], Sequence[RoundRecord]],
    warn: Callable[[str], None],
    notes: list[str],
) -> Iterator[Tracking]:
    """Track a run within the block, if its experiment asks for it.

    `records` returns all committed rounds, oldest first; `warn` is called at once with each
    failure; `notes` collects the failures and where to look.
    """
    tracked = Tracking(run_folder / FOLDER, records, warn, notes)
    tracked.open(experiment, run_folder)
    try:
        yield tracked
    finally:
        tracked.close()


def figures_of(record: RoundRecord) -> dict[str, float]:
    """Return a round's figures for a tracker, under their names in rounds.jsonl.

    IoUs are 0 to 1; what could not be rated is left out. Seconds are by the engine's clock.
    """
    failed = Counter(failure.kind for failure in record.failures)
    found: dict[str, float | None] = {
        "loss": record.loss,
        **(_scores(record.scored) if record.scored else {}),
        "traffic/MB up": record.bytes_up / 1e6,
        "traffic/MB down": record.bytes_down / 1e6,
        "participation/asked": len(record.cohort),
        "participation/used": len(record.accepted) if record.quorum else 0,
        **{f"participation/{kind}": failed[kind] for kind in _FAILURES},
        "images seen": record.images_seen,
        "seconds": record.seconds,
    }
    return {
        name: float(value)
        for name, value in found.items()
        if value is not None and math.isfinite(value)
    }


_FAILURES: tuple[FailureKind, ...] = ("late", "refused", "lost", "abstained")


def _scores(scored: Scored) -> dict[str, float | None]:
    found: dict[str, float | None] = {
        "mIoU": scored.miou,
        "critical mIoU": scored.critical_miou,
    }
    if scored.overall is not None:
        ious = zip(scored.space.classes, scored.overall.iou_C.tolist(), strict=True)
        found |= {f"IoU/{name}": iou for name, iou in ious}
    if len(scored.by_domain) > 1:
        found |= {f"mIoU by domain/{name}": one.miou for name, one in scored.by_domain.items()}
    found |= {f"mIoU by side/{side}": one.miou for side, one in scored.by_side.items()}
    return found


def _give(tracker: Tracker, record: RoundRecord, picture_HWC: Image_HWC | None) -> None:
    tracker.scalars(record.round, figures_of(record))
    if picture_HWC is not None:
        tracker.image(record.round, PICTURE, picture_HWC)


def _told(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
