"""Learning without labels, from another model's predictions: the supervision self_training."""

from __future__ import annotations

from fleetseg.learning.self_training.step import (
    Teachers,
    references_of,
    self_training_loss,
    teachers_of,
    view_without_labels,
)

__all__ = [
    "Teachers",
    "references_of",
    "self_training_loss",
    "teachers_of",
    "view_without_labels",
]
