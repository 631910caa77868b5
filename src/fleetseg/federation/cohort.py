"""Who is asked in a round."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from fleetseg import rng
from fleetseg.federation.messages import Enrolment


def choose(available: Iterable[str], cohort: float, *, seed: int, round_: int) -> tuple[str, ...]:
    """Draw clients uniformly without replacement, as a pure function of (seed, round).

    `cohort` <= 1 is a share of those available (at least one), above 1 a number of clients.
    The answer is sorted and does not depend on the order of `available`.

    >>> choose(["b", "a"], 1.0, seed=0, round_=1)
    ('a', 'b')
    """
    clients = sorted(available)
    wished = round(cohort * len(clients)) if cohort <= 1 else int(cohort)
    count = min(max(wished, 1), len(clients))
    if count == len(clients):
        return tuple(clients)
    drawn = rng.generator(seed, round_, purpose="cohort").choice(
        len(clients), size=count, replace=False
    )
    return tuple(clients[i] for i in sorted(drawn))


def longest_first(cohort: Iterable[str], enrolled: Mapping[str, Enrolment]) -> tuple[str, ...]:
    """Put those with the most images first, so that no worker starts a long one near the end."""
    return tuple(sorted(cohort, key=lambda client: (-enrolled[client].num_images, client)))
