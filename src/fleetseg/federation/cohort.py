"""Who is asked in a round.

A sampler is a function in `SAMPLERS`; what it draws depends on nothing but its arguments.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from fleetseg import rng
from fleetseg.config import FederationConfig
from fleetseg.federation.messages import Enrolment


def size_of(cohort: float, available: int) -> int:
    """How many clients a cohort is: an int is a count, a float up to 1 a share (at least one).

    >>> size_of(0.5, 8), size_of(1.0, 8), size_of(1, 8), size_of(3, 8), size_of(30, 8)
    (4, 8, 1, 3, 8)
    """
    is_count = isinstance(cohort, int) or cohort > 1
    wished = int(cohort) if is_count else round(cohort * available)
    return min(max(wished, 1), available)


Sampler = Callable[
    [Mapping[str, Enrolment], int, np.random.Generator, FederationConfig], Iterable[str]
]
"""(clients in order of their names, how many, a generator, settings) -> so many different names."""


def _uniform(
    enrolled: Mapping[str, Enrolment],
    count: int,
    generator: np.random.Generator,
    settings: FederationConfig,
) -> list[str]:
    names = list(enrolled)
    return [names[i] for i in generator.choice(len(names), size=count, replace=False)]


SAMPLERS: dict[str, Sampler] = {"uniform": _uniform}


@dataclass(frozen=True)
class Cohort:
    """Who is asked in a round, and how many updates are enough."""

    asked: tuple[str, ...]  # the largest first
    target: int  # with over-selection, fewer than are asked


def sample_cohort(
    enrolled: Mapping[str, Enrolment], settings: FederationConfig, *, seed: int, round_: int
) -> Cohort:
    """Draw clients without replacement, as a pure function of (seed, round).

    `over_selection` times as many are drawn as the cohort's size; if that is everybody, no sampler
    is asked. The answer does not depend on the order of `enrolled`.
    """
    ordered = {name: enrolled[name] for name in sorted(enrolled)}
    size = size_of(settings.cohort, len(ordered))
    # The allowance is for products such as 1.1 * 10 = 11.000000000000002.
    wished = math.ceil(settings.over_selection * size - 1e-9)
    drawn: Iterable[str] = ordered
    if wished < len(ordered):
        generator = rng.generator(seed, round_, purpose="cohort")
        drawn = SAMPLERS[settings.sampler](ordered, wished, generator, settings)
    # The largest first, so that no worker starts a long one near the end.
    asked = sorted(drawn, key=lambda client: (-enrolled[client].num_images, client))
    return Cohort(tuple(asked), min(size, len(asked)))
