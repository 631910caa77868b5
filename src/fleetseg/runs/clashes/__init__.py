"""Choices that cannot work together, and why."""

from __future__ import annotations

from fleetseg.runs.clashes.clash import Clash
from fleetseg.runs.clashes.clusters import CLUSTERS
from fleetseg.runs.clashes.discrepancy import DISCREPANCY
from fleetseg.runs.clashes.labels import LABELS
from fleetseg.runs.clashes.local_steps import LOCAL_STEPS
from fleetseg.runs.clashes.parts import PARTS
from fleetseg.runs.clashes.server import SERVER
from fleetseg.runs.clashes.styles import STYLES

__all__ = ["CLASHES"]

CLASHES: tuple[Clash, ...] = (
    *LABELS,
    *DISCREPANCY,
    *LOCAL_STEPS,
    *SERVER,
    *PARTS,
    *CLUSTERS,
    *STYLES,
)
