"""The dict lines of all toys, as they would stand in the tables themselves.

A process that trains needs them, too: a network that imports this module brings them to a worker,
and `site/sitecustomize.py` to the processes of a fleet.
"""

from __future__ import annotations

from tests.toys.aggregator import TOY_MEDIAN
from tests.toys.fact import TOY_BRIGHTNESS, TOY_COLOUR
from tests.toys.objective import TOY_CONTROL
from tests.toys.preset import TOY_PRESET
from tests.toys.publishing import TOY_MEAN
from tests.toys.sampler import TOY_LEAST
from tests.toys.server_optimiser import TOY_ADAM
from tests.toys.sharing import norms_stay
from tests.toys.supervision import TOY_ENTROPY
from tests.toys.weights import TOY_LOSS

from fleetseg.federation.aggregators import AGGREGATORS
from fleetseg.federation.cohort import SAMPLERS
from fleetseg.federation.fleet_facts import FLEET_FACTS
from fleetseg.federation.publishing import PUBLISHING
from fleetseg.federation.server_optim import SERVER_OPTIMISERS
from fleetseg.federation.sharing import SHARING
from fleetseg.federation.weights import WEIGHTS
from fleetseg.learning.objectives import OBJECTIVES
from fleetseg.learning.supervision import SUPERVISION
from fleetseg.methods import METHODS

TABLES = (
    SERVER_OPTIMISERS, SAMPLERS, AGGREGATORS, SHARING, OBJECTIVES, FLEET_FACTS, PUBLISHING,
    SUPERVISION, WEIGHTS, METHODS,
)  # fmt: skip


def add() -> None:
    """Write the lines."""
    SERVER_OPTIMISERS["toy adam"] = TOY_ADAM
    SAMPLERS["toy least"] = TOY_LEAST
    WEIGHTS["toy loss"] = TOY_LOSS
    AGGREGATORS["toy median"] = TOY_MEDIAN
    SHARING["toy norms stay"] = norms_stay
    OBJECTIVES["toy control"] = TOY_CONTROL
    OBJECTIVES["toy brightness"] = TOY_BRIGHTNESS
    FLEET_FACTS["toy colour"] = TOY_COLOUR
    PUBLISHING["toy mean"] = TOY_MEAN
    SUPERVISION["toy entropy"] = TOY_ENTROPY
    METHODS["toy"] = TOY_PRESET


def remove() -> None:
    """Take the lines out again."""
    for table in TABLES:
        for name in [name for name in table if name.startswith("toy")]:
            del table[name]  # type: ignore[attr-defined]
