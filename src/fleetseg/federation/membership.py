"""How many clients a fleet has, where vehicles come and go.

SCAFFOLD's c and FedDyn's h are means, over the N clients of a fleet, of what each of them keeps. N
counts every client that was there in a round that counted: who has left may come back with what it
kept, and is in the mean meanwhile; who is new brings zero. As N grows, the mean shrinks by as much.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from torch import Tensor

from fleetseg.federation.known import Memory
from fleetseg.federation.tensors import Layout, ModelState

_MET = "met"


def with_met(memory: Memory, present: Iterable[str]) -> Memory:
    """Take note of who is there."""
    return {_MET: {**memory.get(_MET, {}), **dict.fromkeys(present, 1.0)}}


def size_of_fleet(memory: Memory) -> int:
    """Return N; 0 before anybody was met."""
    return len(memory.get(_MET, {}))


def with_extras_scaled(model: ModelState, layout: Layout, factor: float) -> ModelState:
    """Multiply the extras of a model; the one that is given stays as it was."""
    if factor == 1 or not layout.spans:
        return model
    scaled_F = model.values_F.clone()
    for span in layout.spans.values():
        scaled_F[span] *= factor
    return ModelState(scaled_F, model.counters_K)


def with_slots_scaled(
    slots: Mapping[str, Tensor], names: Iterable[str], factor: float
) -> dict[str, Tensor]:
    """Multiply the slots of these names."""
    return {**slots, **({name: slots[name] * factor for name in names} if factor != 1 else {})}
