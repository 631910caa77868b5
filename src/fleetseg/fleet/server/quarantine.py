"""Which sites end segments for all others, and how long each of them is left out for it.

An engine may end its job for all when one site's part of it fails. A site through which that has
happened a few times in a row is left out; after a pause it is tried once more, and each failure
from then on doubles the pause. A segment that it lives through makes all good.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from fleetseg.text import plain

STRIKES = 3
"""Segments in a row that may end through a site before it is left out."""
FIRST_PAUSE_S = 120.0
LONGEST_PAUSE_S = 4 * 3600.0
CURE = (
    "see fleetseg/logs/engine.log in its kit: mostly another or a broken installation, or too "
    "little memory; `fleetseg doctor` there, then restart `fleetseg client`"
)


@dataclass(frozen=True)
class Standing:
    """What stands against a site."""

    strikes: int  # segments in a row that ended through it
    reason: str  # of the last one
    pauses: int = 0  # how often it has been left out for that
    until_s: float = 0.0  # when it may be tried again, by the clock; 0 = it is not left out


class Quarantine:
    """The standings of all sites; threads may share it."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._standings: dict[str, Standing] = {}

    def ended_through(self, site: str, reason: str) -> bool:
        """Note that a segment ended through a site; says whether it is left out from here on."""
        with self._lock:
            known = self._standings.get(site, Standing(0, ""))
            strikes, pauses, until_s = known.strikes + 1, known.pauses, 0.0
            if strikes >= STRIKES:
                until_s = self._clock() + min(FIRST_PAUSE_S * 2 ** min(pauses, 30), LONGEST_PAUSE_S)
                pauses += 1
            self._standings[site] = Standing(strikes, plain(reason, 100), pauses, until_s)
            return until_s > 0

    def lived_through(self, sites: Collection[str]) -> None:
        """Note that sites took part in a segment that did its work and did not end through them."""
        with self._lock:
            for site in sites:
                self._standings.pop(site, None)

    def sites(self) -> frozenset[str]:
        """Sites that are left out now."""
        now_s = self._clock()
        with self._lock:
            return frozenset(n for n, s in self._standings.items() if s.until_s > now_s)

    def reasons(self) -> Mapping[str, str]:
        """Why each site that is left out is, for how long, and what an operator can do."""
        now_s = self._clock()
        with self._lock:
            standings = dict(self._standings)
        return {
            name: f"its part of the engine's job has failed {s.strikes} times in a row "
            f"({s.reason}), which ends the segment for all: tried again in "
            f"{(s.until_s - now_s) / 60:.0f} min; {CURE}"
            for name, s in sorted(standings.items())
            if s.until_s > now_s
        }
