"""Simple samplers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fleetseg.federation.known import Known, Memory, Outcome
from fleetseg.federation.proportional import draw_proportional

_LAST, _TIMES = "last", "times"


def shuffled(known: Known, generator: np.random.Generator) -> list[str]:
    """Return the names in random order, to break ties in a later sort."""
    names = list(known.enrolled)
    return [names[k] for k in generator.permutation(len(names))]


def uniform(known: Known, count: int, generator: np.random.Generator) -> Sequence[str]:
    """Draw uniformly: every set of clients is equally likely."""
    names = list(known.enrolled)
    return [names[i] for i in generator.choice(len(names), size=count, replace=False)]


def by_images(known: Known, count: int, generator: np.random.Generator) -> Sequence[str]:
    """Draw with probabilities exactly proportional to images, if those are at most 1."""
    names = list(known.enrolled)
    sizes = [known.enrolled[name].num_images for name in names]
    return [names[k] for k in draw_proportional(sizes, count, generator)]


def round_robin(known: Known, count: int, generator: np.random.Generator) -> Sequence[str]:
    """Ask the clients that were asked longest ago, starting with those that never were.

    Among clients last asked in the same round, those asked less often come first, so that every
    client is asked once before any is asked twice. A client that was absent is asked once when it
    is back; it does not catch up on the rounds that it missed.
    """
    last, times = known.memory.get(_LAST, {}), known.memory.get(_TIMES, {})
    return sorted(
        shuffled(known, generator), key=lambda name: (last.get(name, 0), times.get(name, 0))
    )[:count]


def remember_asked(memory: Memory, outcome: Outcome) -> Memory:
    """Note in which round clients were last asked, and how often, whether they answered or not."""
    times = memory.get(_TIMES, {})
    return {
        _LAST: {**memory.get(_LAST, {}), **dict.fromkeys(outcome.asked, float(outcome.round))},
        _TIMES: {**times, **{name: times.get(name, 0.0) + 1 for name in outcome.asked}},
    }


def poisson(known: Known, count: int, generator: np.random.Generator) -> Sequence[str]:
    """Ask each client independently with the same probability: federation.cohort, if a share.

    If it is a count, that many are asked on average. Sometimes nobody is asked. The usual privacy
    accounting of differential privacy assumes this sampling.
    """
    cohort = known.settings.cohort
    is_count = isinstance(cohort, int) or cohort > 1
    chance = cohort / len(known.enrolled) if is_count else cohort
    numbers = generator.random(len(known.enrolled))
    return [name for name, x in zip(known.enrolled, numbers, strict=True) if x < chance]
