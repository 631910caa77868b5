"""Judges ended segments: which sites ended them, and how many in a row achieved nothing.

Every new segment costs all vehicles some seconds. So a site that ends one after another is left out
(`quarantine`), and if segment after segment ends without a particular site at fault, the run ends.
"""

from __future__ import annotations

import json
import time
from collections.abc import Collection, Mapping
from pathlib import Path

from fleetseg.errors import EngineError
from fleetseg.fleet.server.dispatcher import TaskDispatcher
from fleetseg.fleet.server.quarantine import CURE, Quarantine

MOST_BARREN = 6
"""Consecutive segments that may end without a reply to any task and without a site at fault."""


class Segments:
    """Judges each segment at its end."""

    def __init__(
        self, dispatcher: TaskDispatcher, quarantine: Quarantine, log: Path | None = None
    ) -> None:
        self._dispatcher, self._quarantine, self._log = dispatcher, quarantine, log
        self._sites: frozenset[str] = frozenset()
        self._before = -1  # the dispatcher's count of segments at the start; -1 = none open
        self._barren = 0

    @property
    def is_open(self) -> bool:
        """Whether a segment has started and has not been judged."""
        return self._before >= 0

    @property
    def has_connected(self) -> bool:
        """Whether the open segment has connected to the dispatcher."""
        return self.is_open and self._dispatcher.segment > self._before

    def deployed_to(self, registered: Collection[str], revoked: Collection[str]) -> list[str]:
        """Choose the sites of the next segment: all that are not left out, if there are any."""
        allowed = set(registered) - set(revoked)
        # If there is no other site that they could harm, they may as well try at once.
        return sorted(allowed - self._quarantine.sites() or allowed)

    def begin(self, sites: Collection[str]) -> None:
        """Note that a segment is starting."""
        self._sites, self._before = frozenset(sites), self._dispatcher.segment

    def forget(self) -> None:
        """Drop the open segment without judging it: the network under it has gone."""
        self._before = -1

    def end(self, job: str, through: Mapping[str, str], log: Path, last_words: str) -> None:
        """Judge a segment that has ended.

        Args:
            job: the engine's name for it.
            through: sites that made it end, and why, as far as the engine knows.
            log: the engine's log, to name to the user.
            last_words: the last line of that log.

        Raises:
            EngineError: too many segments in a row achieved nothing.
        """
        planned = self.has_connected and self._dispatcher.ending
        answered = self.has_connected and self._dispatcher.answered == self._dispatcher.segment
        blamed = {} if planned else {s: why for s, why in through.items() if s in self._sites}
        self._note(job, planned, answered, blamed)
        self._before = -1
        for site, why in blamed.items():
            self._quarantine.ended_through(site, why)
        if answered:
            self._quarantine.lived_through(self._sites - set(blamed))
            self._barren = 0
        elif not planned:
            others = self._sites - set(blamed) - self._quarantine.sites()
            self._barren += not (blamed and others)
        if self._barren >= MOST_BARREN:
            told = "; ".join(f"{site}: {why}" for site, why in sorted(blamed.items())[:5])
            raise EngineError(
                f"the engine's job ended {self._barren} times in a row without any work done",
                where=log,
                got=told or last_words,
                expected="a job that runs until a vehicle has answered",
                cure=f"{'On each of them: ' + CURE if told else 'Fix what the log reports'}; "
                "then continue with --resume",
            )

    def _note(self, job: str, planned: bool, answered: bool, through: Mapping[str, str]) -> None:
        if self._log is None:
            return
        line = {
            "time": round(time.time(), 3),
            "segment": self._dispatcher.segment if self.has_connected else None,
            "job": job,
            "sites": len(self._sites),
            "planned": planned,
            "answered": answered,
            "through": dict(through),
        }
        self._log.parent.mkdir(parents=True, exist_ok=True)
        with open(self._log, "a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
