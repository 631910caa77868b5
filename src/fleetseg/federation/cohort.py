"""Who is asked in a round.

A sampler is a `Sampler` in `SAMPLERS`; what it draws depends on nothing but its arguments.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from fleetseg import rng
from fleetseg.config import FederationConfig
from fleetseg.federation.clusters import by_cluster
from fleetseg.federation.known import Known, Memory, Outcome, forget
from fleetseg.federation.messages import Enrolment
from fleetseg.federation.oort import oort, remember_utilities
from fleetseg.federation.power_of_choice import power_of_choice, remember_losses
from fleetseg.federation.samplers import by_images, poisson, remember_asked, round_robin, uniform
from fleetseg.learning.inputs import Facts


def size_of(cohort: float, available: int) -> int:
    """How many clients a cohort is: an int is a count, a float up to 1 a share (at least one).

    >>> size_of(0.5, 8), size_of(1.0, 8), size_of(1, 8), size_of(3, 8), size_of(30, 8)
    (4, 8, 1, 3, 8)
    """
    is_count = isinstance(cohort, int) or cohort > 1
    wished = int(cohort) if is_count else round(cohort * available)
    return min(max(wished, 1), available)


@dataclass(frozen=True)
class Sampler:
    """One way to draw.

    Args:
        draw: (what is known of who is there, how many, a generator of the round's) -> so many
            different names; not asked where that is everybody.
        facts: what it takes of the fleet, and of each client: see federation.fleet_facts.
        remember: (what it remembers, how a round went, with a quorum or not) -> the same from then
            on.
        is_sized: whether it draws as many as it is told; if not, from none to all, and it is
            always asked; a round waits for all that it drew.
    """

    draw: Callable[[Known, int, np.random.Generator], Iterable[str]]
    facts: tuple[str, ...] = ()
    remember: Callable[[Memory, Outcome], Memory] = forget
    is_sized: bool = True


SAMPLERS: dict[str, Sampler] = {
    "uniform": Sampler(uniform),
    "weighted": Sampler(by_images),
    "round-robin": Sampler(round_robin, remember=remember_asked),
    "clusters": Sampler(by_cluster),
    "power of choice": Sampler(power_of_choice, remember=remember_losses),
    "oort": Sampler(oort, remember=remember_utilities),
    "poisson": Sampler(poisson, is_sized=False),
}


@dataclass(frozen=True)
class Cohort:
    """Who is asked in a round, and how many updates are enough."""

    asked: tuple[str, ...]  # the largest first
    target: int  # with over-selection, fewer than are asked


def sample_cohort(
    enrolled: Mapping[str, Enrolment],
    settings: FederationConfig,
    *,
    seed: int,
    round_: int,
    facts: Facts | None = None,
    memory: Memory | None = None,
    seconds_of: Callable[[Enrolment], float] | None = None,
) -> Cohort:
    """Draw clients without replacement, as a pure function of (seed, round, what is known).

    `over_selection` times as many are drawn as the cohort's size; if that is everybody, no sampler
    is asked. The answer does not depend on the order of `enrolled`. `facts` are of the fleet;
    `memory` is what the sampler remembers, `seconds_of` a client's time, where that is simulated.
    """
    sampler = SAMPLERS[settings.sampler]
    ordered = {name: enrolled[name] for name in sorted(enrolled)}
    size = size_of(settings.cohort, len(ordered))
    # The allowance is for products such as 1.1 * 10 = 11.000000000000002.
    wished = math.ceil(settings.over_selection * size - 1e-9)
    drawn: Iterable[str] = ordered
    if ordered and (wished < len(ordered) or not sampler.is_sized):
        generator = rng.generator(seed, round_, purpose="cohort")
        known = Known(ordered, round_, settings, facts or {}, memory or {}, seconds_of)
        drawn = sampler.draw(known, min(wished, len(ordered)), generator)
    # The largest first, so that no worker starts a long one near the end.
    asked = sorted(drawn, key=lambda client: (-enrolled[client].num_images, client))
    # Of who was not drawn as one of a number, everybody is waited for.
    return Cohort(tuple(asked), min(size, len(asked)) if sampler.is_sized else len(asked))
