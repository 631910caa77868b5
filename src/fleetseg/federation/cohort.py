"""Who is asked in a round.

A sampler is a function in `SAMPLERS`; what it draws depends on nothing but its arguments.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping

import numpy as np

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


Sampler = Callable[[Mapping[str, Enrolment], int, np.random.Generator], Iterable[str]]
"""(clients in order of their names, how many, a generator) -> that many different names."""


def _uniform(
    enrolled: Mapping[str, Enrolment], count: int, generator: np.random.Generator
) -> list[str]:
    names = list(enrolled)
    return [names[i] for i in generator.choice(len(names), size=count, replace=False)]


SAMPLERS: dict[str, Sampler] = {"uniform": _uniform}


def choose(
    enrolled: Mapping[str, Enrolment],
    cohort: float,
    *,
    seed: int,
    round_: int,
    over: float = 1.0,
    sampler: str = "uniform",
) -> tuple[str, ...]:
    """Draw clients without replacement, as a pure function of (seed, round).

    `over` times as many are drawn as the cohort's size; if that is everybody, no sampler is asked.
    The answer is sorted and does not depend on the order of `enrolled`.
    """
    ordered = {name: enrolled[name] for name in sorted(enrolled)}
    # The allowance is for products such as 1.1 * 10 = 11.000000000000002.
    wished = math.ceil(over * size_of(cohort, len(ordered)) - 1e-9)
    if wished >= len(ordered):
        return tuple(ordered)
    drawn = SAMPLERS[sampler](ordered, wished, rng.generator(seed, round_, purpose="cohort"))
    return tuple(sorted(drawn))


def longest_first(cohort: Iterable[str], enrolled: Mapping[str, Enrolment]) -> tuple[str, ...]:
    """Put those with the most images first, so that no worker starts a long one near the end."""
    return tuple(sorted(cohort, key=lambda client: (-enrolled[client].num_images, client)))
