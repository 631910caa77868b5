"""Quarantine of sites that end segments for all others.

An engine may end its job for all sites when one site's part of it fails. A site that has caused
this a few times in a row is left out; after a pause it is tried once more, and each further failure
doubles the pause. A segment that the site survives clears its record. A restarted server reads the
records from a file next to its logs.
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
"""Consecutive segments that may end because of a site before it is left out."""
FIRST_PAUSE_S = 120.0
LONGEST_PAUSE_S = 4 * 3600.0
_MOST_BYTES = 1 << 24
CURE = (
    "see fleetseg/logs/engine.log in its kit: usually a different or broken installation, or too "
    "little memory; run `fleetseg doctor` there, then restart `fleetseg client`"
)


@dataclass(frozen=True)
class Standing:
    """A site's record."""

    strikes: int  # consecutive segments that ended because of it
    reason: str  # of the last end
    pauses: int = 0  # how often it has been left out
    until_s: float = 0.0  # when it may be tried again, by the clock; 0 = it is not left out


class Quarantine:
    """The records of all sites; threads may share the object.

    Args:
        clock: a monotonic clock in seconds.
        kept: file that keeps the records beyond this process; None = they are not kept.
    """

    def __init__(self, clock: Callable[[], float], kept: Path | None = None) -> None:
        self._clock, self._kept = clock, kept
        self._lock = threading.Lock()
        self._standings = self._read()

    def ended_through(self, site: str, reason: str) -> bool:
        """Note that a segment ended because of a site; returns whether it is now left out."""
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
        """Note that sites took part in a segment that did work and did not end because of them."""
        with self._lock:
            if good := self._standings.keys() & set(sites):
                for site in good:
                    del self._standings[site]
                self._write()

    def sites(self) -> frozenset[str]:
        """Return the sites that are left out now."""
        now_s = self._clock()
        with self._lock:
            return frozenset(n for n, s in self._standings.items() if s.until_s > now_s)

    def reasons(self) -> Mapping[str, str]:
        """Return, for each site left out: why, for how long, and what an operator can do."""
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
        """Read what an earlier process wrote; an invalid file is ignored.

        The clock has a different origin in each process, so the file has wall-clock times. No pause
        exceeds the longest, whatever has happened to the wall clock meanwhile.
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
        """Write the records to the file; a full disk does not end a run."""
        if self._kept is None:
            return
        shift_s = time.time() - self._clock()
        with suppress(OSError):
            moved = {name: asdict(_moved(s, shift_s)) for name, s in self._standings.items()}
            self._kept.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(self._kept, json.dumps(moved))


def _moved(standing: Standing, by_s: float, now_s: float = float("inf")) -> Standing:
    """Convert the end of a pause to another clock; 0 stays 0."""
    if not standing.until_s:
        return standing
    return replace(standing, until_s=min(standing.until_s + by_s, now_s + LONGEST_PAUSE_S))
