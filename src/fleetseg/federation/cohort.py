"""Who is asked in a round."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from fleetseg import rng
from fleetseg.federation.messages import Enrolment


def size_of(cohort: float, available: int) -> int:
    """How many clients a cohort is: an int is a count, a float up to 1 a share (at least one).

    >>> size_of(0.5, 8), size_of(1.0, 8), size_of(1, 8), size_of(3, 8), size_of(30, 8)
    (4, 8, 1, 3, 8)
    """
    is_count = isinstance(cohort, int) or cohort > 1
    wished = int(cohort) if is_count else round(cohort * available)
    return min(max(wished, 1), available)


def choose(
    available: Iterable[str], cohort: float, *, seed: int, round_: int, over: float = 1.0
) -> tuple[str, ...]:
    """Draw clients uniformly without replacement, as a pure function of (seed, round).

    `over` times as many are drawn as the cohort's size. The answer is sorted and does not depend on
    the order of `available`.

    >>> choose(["b", "a"], 1.0, seed=0, round_=1)
    ('a', 'b')
    """
    clients = sorted(available)
    # The allowance is for products such as 1.1 * 10 = 11.000000000000002.
    wished = math.ceil(over * size_of(cohort, len(clients)) - 1e-9)
    count = min(wished, len(clients))
    if count == len(clients):
        return tuple(clients)
    drawn = rng.generator(seed, round_, purpose="cohort").choice(
        len(clients), size=count, replace=False
    )
    return tuple(clients[i] for i in sorted(drawn))


def longest_first(cohort: Iterable[str], enrolled: Mapping[str, Enrolment]) -> tuple[str, ...]:
    """Put those with the most images first, so that no worker starts a long one near the end."""
    return tuple(sorted(cohort, key=lambda client: (-enrolled[client].num_images, client)))
