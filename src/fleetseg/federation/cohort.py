"""Which clients are asked in a round.

A sampler is a `Sampler` in `SAMPLERS`; what it draws depends only on its arguments.
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
    """Return the size of a cohort: an int is a count, a float up to 1 a share (at least one).

    >>> size_of(0.5, 8), size_of(1.0, 8), size_of(1, 8), size_of(3, 8), size_of(30, 8)
    (4, 8, 1, 3, 8)
    """
    is_count = isinstance(cohort, int) or cohort > 1
    wished = int(cohort) if is_count else round(cohort * available)
    return min(max(wished, 1), available)


@dataclass(frozen=True)
class Sampler:
    """One way to draw a cohort.

    Args:
        draw: (what is known about the clients present, how many, the round's generator) -> that
            many different names; not called if that is everybody.
        facts: the fleet facts it needs: see federation.fleet_facts.
        remember: (its memory, how a round went, with a quorum or not) -> its new memory.
        is_sized: whether it draws as many as requested. If not, it may draw none to all, is always
            called, and a round waits for every client drawn.
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
    """The clients asked in a round, and how many updates are enough."""

    asked: tuple[str, ...]  # the largest first
    target: int  # with over-selection, fewer than were asked


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
    """Draw clients without replacement, as a pure function of seed, round and what is known.

    Draws `over_selection` times the cohort's size; if that is everybody, no sampler is called. The
    result does not depend on the order of `enrolled`. `facts` are the fleet's; `memory` is what the
    sampler remembers, `seconds_of` a client's round time if that is simulated.
    """
    sampler = SAMPLERS[settings.sampler]
    ordered = {name: enrolled[name] for name in sorted(enrolled)}
    size = size_of(settings.cohort, len(ordered))
    # The tolerance is for products such as 1.1 * 10 = 11.000000000000002.
    wished = math.ceil(settings.over_selection * size - 1e-9)
    drawn: Iterable[str] = ordered
    if ordered and (wished < len(ordered) or not sampler.is_sized):
        generator = rng.generator(seed, round_, purpose="cohort")
        known = Known(ordered, round_, settings, facts or {}, memory or {}, seconds_of)
        drawn = sampler.draw(known, min(wished, len(ordered)), generator)
    # The largest first, so that no worker starts a long task near the end.
    asked = sorted(drawn, key=lambda client: (-enrolled[client].num_images, client))
    # With an unsized sampler, the round waits for everyone drawn.
    return Cohort(tuple(asked), min(size, len(asked)) if sampler.is_sized else len(asked))
