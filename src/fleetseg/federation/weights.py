"""How much each client's change counts: a `Weighting` in `WEIGHTS`.

Weights are integers, because the mean is one of integers: `as_integers` makes them of real ones.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from fleetseg.federation.aggregate import Bounded
from fleetseg.federation.class_rarity import CLASS_COUNTS, class_rarity
from fleetseg.federation.fedgau import IMAGE_GAUSSIAN, fedgau
from fleetseg.federation.gap_adjustment import MEASURED, adjust_shares, gap_shares
from fleetseg.federation.known import Known, Memory, Outcome, forget

Weights = dict[str, int]


@dataclass(frozen=True)
class Weighting:
    """One way to weigh.

    Args:
        weigh: what is known of the clients that are asked -> a weight above zero for each.
        facts: what it takes of the fleet, and of each client: see federation.fleet_facts.
        measures: what it takes of each update: see federation.measures.
        remember: (what it remembers, how a round with a quorum went) -> the same from now on.
    """

    weigh: Callable[[Known], Weights]
    facts: tuple[str, ...] = ()
    measures: tuple[str, ...] = ()
    remember: Callable[[Memory, Outcome], Memory] = forget


RESOLUTION = 1 << 20
"""Of real weights: they are rounded to this many steps of the largest, and to one at least."""


def as_integers(weights: Mapping[str, float]) -> Weights:
    """Make integers of weights of at least zero.

    They do not depend on the order of the clients, and no client counts more than RESOLUTION times
    another. Where all are zero, all count the same.

    >>> as_integers({"a": 1.0, "b": 0.5, "c": 0.0})
    {'a': 1048576, 'b': 524288, 'c': 1}
    """
    largest = max(weights.values(), default=0.0)
    if largest <= 0:
        return dict.fromkeys(weights, 1)
    return {c: max(1, round(w / largest * RESOLUTION)) for c, w in weights.items()}


WEIGHTS: dict[str, Weighting] = {
    "images": Weighting(lambda known: {c: e.num_images for c, e in known.enrolled.items()}),
    "pixels": Weighting(lambda known: {c: e.num_pixels for c, e in known.enrolled.items()}),
    "uniform": Weighting(lambda known: dict.fromkeys(known.enrolled, 1)),
    "inverse class frequency": Weighting(
        lambda known: as_integers(class_rarity(known)), facts=(CLASS_COUNTS,)
    ),
    "fedgau": Weighting(lambda known: as_integers(fedgau(known)), facts=(IMAGE_GAUSSIAN,)),
    "feddg-ga": Weighting(
        lambda known: as_integers(gap_shares(known)), measures=MEASURED, remember=adjust_shares
    ),
}


def weights_of(known: Known, bounded: Bounded) -> Weights:
    """Weigh clients; those that are not counts, which are cut before, are `bounded`."""
    weighting = WEIGHTS[known.settings.weights]
    weights = weighting.weigh(known)
    if not (weighting.facts or weighting.measures):
        return weights
    return {client: max(1, int(w)) for client, w in bounded(weights, "weights").items()}
