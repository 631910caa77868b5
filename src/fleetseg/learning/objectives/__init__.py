"""Objectives: additions to a client's loss that align it with the fleet; one module each."""

from __future__ import annotations

from fleetseg.learning.objectives.client_momentum import CLIENT_MOMENTUM
from fleetseg.learning.objectives.drift import DRIFT
from fleetseg.learning.objectives.dyn import DYN
from fleetseg.learning.objectives.fedspeed import FEDSPEED
from fleetseg.learning.objectives.mimelite import MIMELITE
from fleetseg.learning.objectives.moon import MOON
from fleetseg.learning.objectives.objective import LocalCost, Objective, Vectors
from fleetseg.learning.objectives.prox import PROX
from fleetseg.learning.objectives.sam import ASAM, SAM
from fleetseg.learning.objectives.scaffold import SCAFFOLD

__all__ = ["OBJECTIVES", "LocalCost", "Objective", "Vectors"]

OBJECTIVES: dict[str, Objective] = {
    "plain": Objective(),
    "prox": PROX,
    "scaffold": SCAFFOLD,
    "dyn": DYN,
    "drift": DRIFT,
    "client momentum": CLIENT_MOMENTUM,
    "sam": SAM,
    "asam": ASAM,
    "moon": MOON,
    "fedspeed": FEDSPEED,
    "mimelite": MIMELITE,
}
