"""The progress of the runs of a sweep, and the estimated time left."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from fleetseg.runs.sweep_plan import PlannedRun

State = Literal["waiting", "running", "finished", "failed", "interrupted"]
_RECENT = 30  # number of recent rounds that the estimate is based on


@dataclass(frozen=True)
class RunStatus:
    """The state of one run of a sweep."""

    planned: PlannedRun
    state: State = "waiting"
    rounds_done: int = 0
    miou: float | None = None  # of the newest scored round
    why: str = ""  # of a failed run
    was_there: bool = False  # finished by an earlier start of the sweep
    doing: str = ""  # for a running one, before its first round

    @property
    def rounds(self) -> int:
        """Rounds of the whole run, unless something stops it before."""
        return self.planned.experiment.federation.rounds

    @property
    def rounds_left(self) -> int:
        """Rounds still to come."""
        return self.rounds - self.rounds_done if self.state in ("waiting", "running") else 0


Statuses = Mapping[str, RunStatus]
"""By the name of the run, in the order of the plan."""


def counts(statuses: Statuses) -> Mapping[State, int]:
    """Count the runs in each state."""
    return Counter(status.state for status in statuses.values())


class TimeLeft:
    """Estimates the time left from the durations of recent rounds of any run."""

    def __init__(self, jobs: int, now: Callable[[], float] = time.monotonic) -> None:
        self._jobs, self._now = jobs, now
        self._since: dict[str, float] = {}  # run -> when its last round ended, or the run began
        self._recent: deque[float] = deque(maxlen=_RECENT)

    def begin(self, name: str) -> None:
        """Record that a run begins."""
        self._since[name] = self._now()

    def close_round(self, name: str) -> None:
        """Record that a round of a run is finished."""
        now = self._now()
        self._recent.append(now - self._since[name])
        self._since[name] = now

    def seconds(self, statuses: Sequence[RunStatus]) -> float | None:
        """Estimate the seconds left; None before the first round is finished."""
        if not self._recent:
            return None
        left = [status.rounds_left for status in statuses if status.rounds_left]
        mean_s = sum(self._recent) / len(self._recent)
        # The longest run takes its time however many processes there are.
        return mean_s * max([sum(left) / self._jobs, *left], default=0.0)
