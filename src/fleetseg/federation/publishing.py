"""Which model is scored and saved: the last one, or one made of several.

A way to publish is a `Publication` in `PUBLISHING`: the names of the vectors that it remembers, and
two pure functions. What is sent to clients is always the last model.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from fleetseg.config import FederationConfig
from fleetseg.federation.tensors import ModelState
from fleetseg.learning.schedules import first_round_after

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


def _remember_ema(
    vectors: Vectors, model: ModelState, round_: int, settings: FederationConfig
) -> Vectors:
    """Average with weights that decay: e <- b e + (1 - b) x, and e = x at first.

    b is (1 + t) / (10 + t) before the t-th average until that is above `ema.beta`, so that a model
    of the first rounds does not weigh on those of a short run.
    """
    count = vectors.get("averaged", torch.zeros(1))
    if "ema" not in vectors:
        return {"ema": model.values_F.clone(), "averaged": count}
    warming = (1 + count.item()) / (10 + count.item())
    beta = min(settings.ema.beta, warming)
    return {"ema": torch.lerp(model.values_F, vectors["ema"], beta), "averaged": count + 1}


def _ema(model: ModelState, vectors: Vectors, settings: FederationConfig) -> ModelState:
    return ModelState(vectors.get("ema", model.values_F), model.counters_K)


def _remember_two(
    vectors: Vectors, model: ModelState, round_: int, settings: FederationConfig
) -> Vectors:
    """Keep the last two models, of parameters and statistics both: FedExP is scored so."""
    before = {"before": vectors["newest"]} if "newest" in vectors else {}
    return {"newest": model.values_F.clone(), **before}


def _mean_of_two(model: ModelState, vectors: Vectors, settings: FederationConfig) -> ModelState:
    if "before" not in vectors:
        return model
    mean_F = torch.lerp(vectors["before"], vectors["newest"], 0.5)
    return ModelState(mean_F, model.counters_K)


def _remember_swa(
    vectors: Vectors, model: ModelState, round_: int, settings: FederationConfig
) -> Vectors:
    """Average every `swa.period`-th model past the share `swa.start` of the rounds, all alike.

    Izmailov et al. 2018, arXiv 1803.05407; of a server's models: Caldarola et al. 2022, arXiv
    2203.11834. As x + (y - x) / n, so that the average of equal models is that model.
    """
    first = first_round_after(settings.swa.start, settings.rounds)
    if round_ < first or (round_ - first) % settings.swa.period:
        return vectors
    count = vectors.get("averaged", torch.zeros(1)) + 1
    mean_F = vectors.get("swa", model.values_F)
    return {"swa": mean_F + (model.values_F - mean_F) / count, "averaged": count}


def _swa(model: ModelState, vectors: Vectors, settings: FederationConfig) -> ModelState:
    return ModelState(vectors.get("swa", model.values_F), model.counters_K)


PUBLISHING: dict[str, Publication] = {
    "last": Publication(
        remember=lambda vectors, model, round_, settings: {},
        model=lambda model, vectors, settings: model,
    ),
    "ema": Publication(_remember_ema, _ema),
    "last two": Publication(_remember_two, _mean_of_two),
    "swa": Publication(_remember_swa, _swa),
}
