"""The model that is scored and saved: the last one, or an average of several.

Each way to publish is a `Publication` in `PUBLISHING`: two pure functions over the vectors that it
remembers. Clients are always sent the last model.
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
"""Named float32 vectors, as long as all floats of a model (suffix F)."""


@dataclass(frozen=True)
class Publication:
    """One way to publish.

    Args:
        remember: (vectors so far, the model after a round, that round's number from 1, settings)
            -> the new vectors; there are none before the first round.
        model: (the last model, vectors, settings) -> the model that is scored and saved.
    """

    remember: Callable[[Vectors, ModelState, int, FederationConfig], Vectors]
    model: Callable[[ModelState, Vectors, FederationConfig], ModelState]


def _remember_ema(
    vectors: Vectors, model: ModelState, round_: int, settings: FederationConfig
) -> Vectors:
    """Keep an exponential average: e <- b e + (1 - b) x, with e = x at first.

    For the t-th average b is (1 + t) / (10 + t) until that exceeds `ema.beta`, so that models of
    the first rounds do not dominate a short run.
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
    """Keep the last two models, parameters and statistics; FedExP is scored on their mean."""
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
    """Average every `swa.period`-th model after the share `swa.start` of the rounds, equally.

    Izmailov et al. 2018, arXiv 1803.05407; of a server's models: Caldarola et al. 2022, arXiv
    2203.11834. Computed as x + (y - x) / n, so that the average of equal models is that model.
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
