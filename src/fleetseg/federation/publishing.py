"""Which model is scored and saved: the last one, or one made of several.

A way to publish is a `Publication` in `PUBLISHING`: the names of the vectors that it remembers, and
two pure functions. What is sent to clients is always the last model.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor

from fleetseg.config import FederationConfig
from fleetseg.federation.tensors import ModelState

Vectors = Mapping[str, Tensor]
"""Float32 vectors as long as all floats of a model, by name (suffix F)."""


@dataclass(frozen=True)
class Publication:
    """One way to publish.

    Args:
        remember: (vectors so far, the model after a round, number of that round from 1, settings)
            -> the vectors from now on; before the first round there is none.
        model: (the last model, vectors, settings) -> the model that is scored and saved.
    """

    remember: Callable[[Vectors, ModelState, int, FederationConfig], Vectors]
    model: Callable[[ModelState, Vectors, FederationConfig], ModelState]


PUBLISHING: dict[str, Publication] = {
    "last": Publication(
        remember=lambda vectors, model, round_, settings: {},
        model=lambda model, vectors, settings: model,
    ),
}
