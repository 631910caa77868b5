"""Power of choice: from a set of candidates, ask those with the highest loss.

Cho, Wang, Joshi 2020, arXiv 2010.01243, section 4: d candidates are drawn without replacement with
probabilities proportional to their data, and the m with the largest losses take part. This is
their variant rpow-d, which uses the loss that a client had when it last took part and so needs no
evaluation; that loss is the mean over the steps of its round. Clients without a loss come first,
unless they have failed to answer: see `back_off`.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import inf

import numpy as np

from fleetseg.federation.back_off import remember_missed, without_resting
from fleetseg.federation.known import Known, Memory, Outcome
from fleetseg.federation.proportional import draw_proportional

_LOSS = "loss"


def power_of_choice(known: Known, count: int, generator: np.random.Generator) -> Sequence[str]:
    """Draw candidates and take those with the highest losses; ties are broken at random."""
    losses, known = known.memory.get(_LOSS, {}), without_resting(known, count)
    wished = known.settings.power_of_choice.candidates or 2 * count
    names = list(known.enrolled)
    sizes = [known.enrolled[name].num_images for name in names]
    number = min(max(wished, count), len(names))
    drawn = draw_proportional(sizes, number, generator)
    candidates = [names[drawn[k]] for k in generator.permutation(number)]
    return sorted(candidates, key=lambda name: -losses.get(name, inf))[:count]


def remember_losses(memory: Memory, outcome: Outcome) -> Memory:
    """Note the losses of a round, and which clients were asked in vain."""
    now = {update.client_id: update.loss for update in outcome.accepted}
    return {_LOSS: {**memory.get(_LOSS, {}), **now}, **remember_missed(memory, outcome)}
