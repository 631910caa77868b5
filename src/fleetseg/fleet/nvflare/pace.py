"""Message intervals in a job, by its number of sites.

With few vehicles, messages are frequent, as the load is negligible: vehicles start working within a
tenth of a second and are missed within seconds. Each message of a vehicle costs the server 2 to 4
ms of processor time, so from about twenty vehicles on, the total rate stays about the same.
"""

from __future__ import annotations

from dataclasses import dataclass

from fleetseg.fleet.beats import beat_every_s


@dataclass(frozen=True)
class Pace:
    """Seconds between two messages of one vehicle, and the time-outs that follow from them."""

    poll_s: float  # task requests of a vehicle without notifications
    heart_s: float  # task requests of a vehicle with notifications
    beat_s: float  # heartbeats of an idle vehicle
    job_beat_s: float  # NVFlare's own heartbeats of a vehicle's part of a job
    retry_s: float  # after a failed task request
    join_s: float  # for a vehicle's part of a job to reach the server's, else the job ends for all
    sync_s: float  # for the reply to one attempt: frequent retries by hundreds overload the server


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
    """Return how long the server waits for vehicles to accept a job: the slowest delays all.

    >>> admin_timeout_s(4), admin_timeout_s(500)
    (10.0, 60.0)
    """
    return _between(10.0, num_vehicles / 5, 60.0)


def answer_timeout_s(num_vehicles: int) -> float:
    """Return how long the server waits for an answer of NVFlare's process, which may be busy.

    >>> answer_timeout_s(4), answer_timeout_s(1000)
    (5.0, 20.0)
    """
    return _between(5.0, num_vehicles / 50, 30.0)


def _between(least: float, value: float, most: float) -> float:
    return max(least, min(value, most))
