"""How often what is said in a job, by the number of its sites.

A few vehicles are asked about often, as nobody feels it: they are at work within a tenth of a
second and missed within seconds. Each message of a vehicle costs the server 2 to 4 ms of processor
time, so from some twenty on, what all of them say together stays about the same.
"""

from __future__ import annotations

from dataclasses import dataclass

from fleetseg.fleet.beats import beat_every_s


@dataclass(frozen=True)
class Pace:
    """Seconds between two messages of one vehicle, and patience that follows from them."""

    poll_s: float  # questions for tasks, of a vehicle that no bell calls
    heart_s: float  # questions for tasks, of one that is called by a bell
    beat_s: float  # signs of life of one that is idle
    job_beat_s: float  # NVFlare's own heartbeats of a vehicle's part of a job
    retry_s: float  # after a question for tasks that failed
    join_s: float  # for a vehicle's part of a job to reach the server's, else it ends for all
    sync_s: float  # for the answer to one try at that: asked again too soon, hundreds drown it


def pace_of(num_sites: int) -> Pace:
    """Choose the pace of a job.

    >>> pace_of(4).poll_s, pace_of(4).beat_s, pace_of(50).poll_s, pace_of(500).heart_s
    (0.1, 1.0, 1.0, 120.0)
    """
    return Pace(
        poll_s=_between(0.1, num_sites / 50, 10.0),
        heart_s=_between(5.0, num_sites / 4, 120.0),
        beat_s=beat_every_s(num_sites),
        job_beat_s=_between(10.0, num_sites / 4, 120.0),
        retry_s=_between(0.5, num_sites / 50, 10.0),
        join_s=_between(60.0, num_sites * 1.0, 300.0),
        sync_s=_between(2.0, num_sites / 15, 30.0),
    )


def admin_timeout_s(num_vehicles: int) -> float:
    """How long the server waits for vehicles to take a job in: the slowest holds up all.

    >>> admin_timeout_s(4), admin_timeout_s(500)
    (10.0, 60.0)
    """
    return _between(10.0, num_vehicles / 5, 60.0)


def _between(least: float, value: float, most: float) -> float:
    return max(least, min(value, most))
