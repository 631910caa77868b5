"""How clients' changes are weighted: a `Weighting` in `WEIGHTS`.

Weights are integers, because the mean is computed in integers; `as_integers` converts real ones.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from fleetseg.federation.class_rarity import CLASS_COUNTS, class_rarity
from fleetseg.federation.fedgau import IMAGE_GAUSSIAN, fedgau
from fleetseg.federation.gap_adjustment import MEASURED, adjust_shares, gap_shares
from fleetseg.federation.known import Known, Memory, Outcome, forget

Weights = dict[str, int]


@dataclass(frozen=True)
class Weighting:
    """One way to weigh clients.

    Args:
        weigh: what is known about the clients asked -> a weight above zero for each.
        facts: the fleet facts it needs: see federation.fleet_facts.
        measures: the measures it needs from each update: see federation.measures.
        remember: (its memory, how a round with a quorum went) -> its new memory.
    """

    weigh: Callable[[Known], Weights]
    facts: tuple[str, ...] = ()
    measures: tuple[str, ...] = ()
    remember: Callable[[Memory, Outcome], Memory] = forget


RESOLUTION = 1 << 20
"""Real weights are rounded to this many steps of the largest, and to at least one step."""


def as_integers(weights: Mapping[str, float]) -> Weights:
    """Convert weights of at least zero to integers.

    The result does not depend on the order of the clients, and no client counts more than
    RESOLUTION times another. If all weights are zero, all clients count the same.

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
