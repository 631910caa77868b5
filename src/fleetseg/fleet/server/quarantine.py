"""Which sites end segments for all others, and how long each of them is left out for it.

An engine may end its job for all when one site's part of it fails. A site through which that has
happened a few times in a row is left out; after a pause it is tried once more, and each failure
from then on doubles the pause. A segment that it lives through makes all good. A server that is
started again knows what stood against whom, from a file beside its logs.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from fleetseg.files import write_atomic
from fleetseg.strict_json import BadJson, read_json
from fleetseg.text import plain

STRIKES = 3
"""Segments in a row that may end through a site before it is left out."""
FIRST_PAUSE_S = 120.0
LONGEST_PAUSE_S = 4 * 3600.0
_MOST_BYTES = 1 << 24
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
    """The standings of all sites; threads may share it.

    Args:
        clock: seconds that only go forwards.
        kept: file that outlives this process; None = nothing does.
    """

    def __init__(self, clock: Callable[[], float], kept: Path | None = None) -> None:
        self._clock, self._kept = clock, kept
        self._lock = threading.Lock()
        self._standings = self._read()

    def ended_through(self, site: str, reason: str) -> bool:
        """Note that a segment ended through a site; says whether it is left out from here on."""
        with self._lock:
            known = self._standings.get(site, Standing(0, ""))
            strikes, pauses, until_s = known.strikes + 1, known.pauses, 0.0
            if strikes >= STRIKES:
                until_s = self._clock() + min(FIRST_PAUSE_S * 2 ** min(pauses, 30), LONGEST_PAUSE_S)
                pauses += 1
            self._standings[site] = Standing(strikes, plain(reason, 100), pauses, until_s)
            self._write()
            return until_s > 0

    def lived_through(self, sites: Collection[str]) -> None:
        """Note that sites took part in a segment that did its work and did not end through them."""
        with self._lock:
            if good := self._standings.keys() & set(sites):
                for site in good:
                    del self._standings[site]
                self._write()

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

    def _read(self) -> dict[str, Standing]:
        """Read what an earlier process wrote; a file that is none of its own says nothing.

        The clock's zero is another in each process: the file has the time of day, and no pause is
        longer than the longest, whatever was done to the clock meanwhile.
        """
        with suppress(OSError, BadJson, TypeError, AttributeError):
            text = self._kept.read_bytes() if self._kept else b"{}"
            read = {
                str(name): Standing(**fields)
                for name, fields in read_json(text, max_bytes=_MOST_BYTES).items()
            }
            now_s, today_s = self._clock(), time.time()
            return {name: _moved(s, now_s - today_s, now_s) for name, s in read.items()}
        return {}

    def _write(self) -> None:
        """Keep what stands against whom; a full disk is no reason to end a run."""
        if self._kept is None:
            return
        shift_s = time.time() - self._clock()
        with suppress(OSError):
            moved = {name: asdict(_moved(s, shift_s)) for name, s in self._standings.items()}
            self._kept.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(self._kept, json.dumps(moved))


def _moved(standing: Standing, by_s: float, now_s: float = float("inf")) -> Standing:
    """Say when a pause is over by another clock; 0 stays what it is."""
    if not standing.until_s:
        return standing
    return replace(standing, until_s=min(standing.until_s + by_s, now_s + LONGEST_PAUSE_S))
