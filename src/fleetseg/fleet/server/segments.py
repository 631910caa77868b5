"""How segments end: through whom, and how many in a row in which nothing was done.

Every segment costs all vehicles some seconds, so who ends one after another is left out
(`quarantine`), and where one after another ends and nobody in particular is why, the run ends.
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
"""Segments in a row that may end without an answer to any task, and through nobody."""


class Segments:
    """Judges one segment after another, from its start to its end."""

    def __init__(
        self, dispatcher: TaskDispatcher, quarantine: Quarantine, log: Path | None = None
    ) -> None:
        self._dispatcher, self._quarantine, self._log = dispatcher, quarantine, log
        self._sites: frozenset[str] = frozenset()
        self._before = -1  # segments of the dispatcher when this one was begun; -1 = none is open
        self._barren = 0

    @property
    def is_open(self) -> bool:
        """Whether one has been begun and not been judged."""
        return self._before >= 0

    @property
    def has_connected(self) -> bool:
        """Whether the one that was begun has reached the dispatcher."""
        return self.is_open and self._dispatcher.segment > self._before

    def deployed_to(self, registered: Collection[str], revoked: Collection[str]) -> list[str]:
        """Choose the sites of the next segment: all but who is left out, if there are others."""
        allowed = set(registered) - set(revoked)
        # Where nobody is left whom they could harm, they may as well try at once.
        return sorted(allowed - self._quarantine.sites() or allowed)

    def begin(self, sites: Collection[str]) -> None:
        """Note that a segment is on its way."""
        self._sites, self._before = frozenset(sites), self._dispatcher.segment

    def forget(self) -> None:
        """Judge nobody by the segment at hand: what carried it has gone."""
        self._before = -1

    def end(self, job: str, through: Mapping[str, str], log: Path, last_words: str) -> None:
        """Judge a segment that has ended.

        Args:
            job: the engine's name of it.
            through: sites that it ended through, and why, as far as the engine knows.
            log: of the engine, for a person.
            last_words: of that log.

        Raises:
            EngineError: too many in a row in which nothing was done.
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
                f"the engine's job ended {self._barren} times in a row and nothing was done in it",
                where=log,
                got=told or last_words,
                expected="a job that lives until a vehicle has answered",
                cure=f"{'On each of them: ' + CURE if told else 'Mend what the log says'}; "
                "then go on with --resume",
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
