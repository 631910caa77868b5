"""Heartbeats: from when a site's silence counts, and whether sites fell silent together."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from fleetseg.fleet.beats import QUICK_S

_AT_ONCE_S = 5.0  # sites whose heartbeats stopped within this time stopped together


@dataclass
class Site:
    """One kit's process in the current segment, as the server sees it."""

    name: str
    beat_s: float  # monotonic time of the last heartbeat
    busy: str = ""  # the task that it reports to be working on
    progress: str = ""  # its reported progress; a different text is progress
    moved_s: float = 0.0  # when the progress, or the task, last changed
    overdue: str = ""  # a task that it fetched and that was abandoned
    asked_s: float = float("-inf")  # when it was last asked, which it answers with a heartbeat


def counts_from_s(site: Site, beat_s: float) -> float:
    """Return the time from which the silence of a site counts, with heartbeats every `beat_s`.

    A site without work is notified when it is asked, and sends a heartbeat in response.

    >>> counts_from_s(Site("a", beat_s=100.0), 25.0)
    124.0
    >>> counts_from_s(Site("a", beat_s=100.0, asked_s=110.0), 25.0)
    110.0
    """
    due_s = site.beat_s + beat_s - QUICK_S
    was_asked = not site.busy and site.asked_s > site.beat_s
    return min(due_s, site.asked_s) if was_asked else due_s


def fell_silent_together(beats_s: Iterable[float], now_s: float, patience_s: float) -> bool:
    """Return whether no site can be heard and at least two stopped at the same time.

    `beats_s` are the last heartbeats; -inf for a site that the network has given up.

    >>> fell_silent_together([10.0, 11.0, 2.0], now_s=30.0, patience_s=15.0)
    True
    >>> fell_silent_together([10.0, 29.0], 30.0, 15.0)  # one of them is heard
    False
    >>> fell_silent_together([2.0, 11.0], 30.0, 15.0)  # one after the other
    False
    """
    last = sorted(beats_s)[-2:]
    if len(last) < 2 or now_s - last[1] <= patience_s:
        return False
    return last[0] == last[1] or last[1] - last[0] <= _AT_ONCE_S
