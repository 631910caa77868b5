"""A sampler as somebody else would add one, with a memory: this file, and a line in a dict."""

from __future__ import annotations

import numpy as np

from fleetseg.federation.cohort import Sampler
from fleetseg.federation.known import Known, Memory, Outcome


def _draw(known: Known, count: int, generator: np.random.Generator) -> list[str]:
    """Ask those with the least training so far and, of these, with the fewest images."""
    steps = known.memory.get("steps", {})
    order = generator.permutation(len(known.enrolled))
    names = [list(known.enrolled)[i] for i in order]
    return sorted(names, key=lambda c: (steps.get(c, 0), known.enrolled[c].num_images))[:count]


def _remember(memory: Memory, outcome: Outcome) -> Memory:
    steps = dict(memory.get("steps", {}))
    for update in outcome.accepted:
        steps[update.client_id] = steps.get(update.client_id, 0) + update.num_steps
    return {"steps": steps}


TOY_LEAST = Sampler(_draw, remember=_remember)
