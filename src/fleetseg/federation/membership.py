"""The number of clients in a fleet whose vehicles come and go.

SCAFFOLD's c and FedDyn's h are means, over the N clients of a fleet, of what each client keeps. N
counts every client that was present in a round that counted: a client that has left may come back
with its state and stays in the mean meanwhile; a new client contributes zero. As N grows, the mean
is scaled down accordingly.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from torch import Tensor

from fleetseg.federation.known import Memory
from fleetseg.federation.tensors import Layout, ModelState

_MET = "met"


def with_met(memory: Memory, present: Iterable[str]) -> Memory:
    """Note the clients that are present."""
    return {_MET: {**memory.get(_MET, {}), **dict.fromkeys(present, 1.0)}}


def size_of_fleet(memory: Memory) -> int:
    """Return N; 0 before any client was present."""
    return len(memory.get(_MET, {}))


def with_extras_scaled(
    model: ModelState, layout: Layout, names: Iterable[str], factor: float
) -> ModelState:
    """Scale the extras with these names; the given model is not changed."""
    spans = [layout.spans[name] for name in names]
    if factor == 1 or not spans:
        return model
    scaled_F = model.values_F.clone()
    for span in spans:
        scaled_F[span] *= factor
    return ModelState(scaled_F, model.counters_K)


def with_slots_scaled(
    slots: Mapping[str, Tensor], names: Iterable[str], factor: float
) -> dict[str, Tensor]:
    """Scale the slots with these names."""
    return {**slots, **({name: slots[name] * factor for name in names} if factor != 1 else {})}
