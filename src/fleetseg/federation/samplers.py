"""Samplers that are a few lines each."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fleetseg.federation.known import Known, Memory, Outcome
from fleetseg.federation.proportional import draw_proportional

_LAST, _TIMES = "last", "times"


def shuffled(known: Known, generator: np.random.Generator) -> list[str]:
    """Return the names in a random order, which breaks ties of a sort that follows."""
    names = list(known.enrolled)
    return [names[k] for k in generator.permutation(len(names))]


def uniform(known: Known, count: int, generator: np.random.Generator) -> Sequence[str]:
    """Draw so that each set of clients is as probable as any other."""
    names = list(known.enrolled)
    return [names[i] for i in generator.choice(len(names), size=count, replace=False)]


def by_images(known: Known, count: int, generator: np.random.Generator) -> Sequence[str]:
    """Draw with probabilities exactly proportional to images, where those are at most 1."""
    names = list(known.enrolled)
    sizes = [known.enrolled[name].num_images for name in names]
    return [names[k] for k in draw_proportional(sizes, count, generator)]


def round_robin(known: Known, count: int, generator: np.random.Generator) -> Sequence[str]:
    """Ask those who were asked the longest ago, and first of all those who never were.

    Of those who were asked in the same round, the ones who were asked less often: so everybody is
    asked once before anybody is asked twice. Who was absent is asked once when it is back, and has
    no rounds to catch up.
    """
    last, times = known.memory.get(_LAST, {}), known.memory.get(_TIMES, {})
    return sorted(
        shuffled(known, generator), key=lambda name: (last.get(name, 0), times.get(name, 0))
    )[:count]


def remember_asked(memory: Memory, outcome: Outcome) -> Memory:
    """Note in which round clients were asked last, and how often they were; answered or not."""
    times = memory.get(_TIMES, {})
    return {
        _LAST: {**memory.get(_LAST, {}), **dict.fromkeys(outcome.asked, float(outcome.round))},
        _TIMES: {**times, **{name: times.get(name, 0.0) + 1 for name in outcome.asked}},
    }


def poisson(known: Known, count: int, generator: np.random.Generator) -> Sequence[str]:
    """Ask each client by itself with the same probability: federation.cohort, if it is a share.

    Of a number of clients, so that as many are asked on average. Sometimes nobody is. It is what
    the usual accounts of differential privacy suppose.
    """
    cohort = known.settings.cohort
    is_count = isinstance(cohort, int) or cohort > 1
    chance = cohort / len(known.enrolled) if is_count else cohort
    numbers = generator.random(len(known.enrolled))
    return [name for name, x in zip(known.enrolled, numbers, strict=True) if x < chance]
