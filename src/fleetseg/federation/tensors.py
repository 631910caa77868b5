"""A model's state as two flat vectors, split once by module type.

Every state-dict key is one of three kinds (contract 5 of docs/architecture.md):

* trainable  parameters: what server optimisers, clipping and codecs may touch;
* statistic  floating-point buffers (running mean and variance of norm layers, any other);
* counter    integer buffers (`num_batches_tracked`, index tables): never averaged.

The kind comes from the module that owns the key, never from the key's name.
Suffix of vectors here: F = all floats (trainable first, then statistics), K = counters.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from fleetseg.errors import ModelError

Kind = Literal["trainable", "statistic", "counter"]


@dataclass(frozen=True)
class Entry:
    """One state-dict key and where it lies in its flat vector."""

    key: str
    shape: tuple[int, ...]
    kind: Kind
    start: int
    is_variance: bool = False

    @cached_property
    def size(self) -> int:
        """Number of values."""
        return math.prod(self.shape)

    @cached_property
    def stop(self) -> int:
        """One past the last value in the flat vector."""
        return self.start + self.size


@dataclass(frozen=True)
class Layout:
    """The keys of a model in canonical order: what both sides of the wire must agree on."""

    floats: tuple[Entry, ...]
    counters: tuple[Entry, ...]

    def __getstate__(self) -> dict[str, object]:
        """Leave out what is derived: torch would hand a tensor to a new process as an open file."""
        return {"floats": self.floats, "counters": self.counters}

    @cached_property
    def num_trainable(self) -> int:
        """Number of trainable values; they come first among the floats."""
        return sum(e.size for e in self.floats if e.kind == "trainable")

    @cached_property
    def num_floats(self) -> int:
        """Number of floating-point values."""
        return sum(e.size for e in self.floats)

    @cached_property
    def num_counters(self) -> int:
        """Number of integer values."""
        return sum(e.size for e in self.counters)

    @cached_property
    def variances_V(self) -> Tensor:
        """Where in the floats the running variances lie: int64 positions."""
        parts = [torch.arange(e.start, e.stop) for e in self.floats if e.is_variance]
        return torch.cat(parts) if parts else torch.empty(0, dtype=torch.int64)

    @cached_property
    def by_key(self) -> dict[str, Entry]:
        """All entries by their key."""
        return {e.key: e for e in (*self.floats, *self.counters)}

    @cached_property
    def digest(self) -> str:
        """SHA-256 over keys, shapes and kinds."""
        rows = [(e.key, e.shape, e.kind) for e in (*self.floats, *self.counters)]
        return hashlib.sha256(json.dumps(rows).encode()).hexdigest()

    def empty(self) -> ModelState:
        """New flat vectors on the CPU, their values not set."""
        return ModelState(
            torch.empty(self.num_floats), torch.empty(self.num_counters, dtype=torch.int64)
        )

    def views(self, state: ModelState) -> dict[str, Tensor]:
        """Give every key a view into the flat vectors."""
        named: dict[str, Tensor] = {}
        for entries, flat in ((self.floats, state.values_F), (self.counters, state.counters_K)):
            # One call for all slices: a model has hundreds, and a round takes them per client.
            parts = flat.split_with_sizes([e.size for e in entries]) if entries else ()
            for entry, part in zip(entries, parts, strict=True):
                named[entry.key] = part if len(entry.shape) == 1 else part.view(entry.shape)
        return named


@dataclass(frozen=True)
class ModelState:
    """All values of a model: `values_F` float32 (trainable first), `counters_K` int64."""

    values_F: Tensor
    counters_K: Tensor

    def clone(self) -> ModelState:
        """Copy both vectors."""
        return ModelState(self.values_F.clone(), self.counters_K.clone())

    def digest(self) -> str:
        """SHA-256 of the values: equal if and only if two states have the same bits."""
        # `.data` and not memoryview().cast, which refuses a model without counters.
        hasher = hashlib.sha256(self.values_F.numpy().data)
        hasher.update(self.counters_K.numpy().data)
        return hasher.hexdigest()


def layout_of(model: nn.Module) -> Layout:
    """Sort a model's state-dict keys into trainable, statistic and counter.

    Raises:
        ModelError: for floating-point tensors that are not float32, or a model without parameters.
    """
    rows: dict[Kind, list[tuple[str, tuple[int, ...], bool]]]
    rows = {"trainable": [], "statistic": [], "counter": []}
    for key, tensor in model.state_dict().items():
        owner, _, name = key.rpartition(".")
        module = model.get_submodule(owner)
        if not isinstance(tensor, Tensor) or tensor.is_complex():
            got = getattr(tensor, "dtype", type(tensor).__name__)
            raise ModelError("not a real or integer tensor", where=key, got=got)
        kind = _kind(module, name, tensor)
        if kind != "counter" and tensor.dtype != torch.float32:
            raise ModelError(
                "parameters and statistics must be float32",
                where=key,
                got=tensor.dtype,
                cure="Call model.float(); low precision comes from engine.precision",
            )
        variance = isinstance(module, _NormBase) and name == "running_var"
        rows[kind].append((key, tuple(tensor.shape), variance))
    if not rows["trainable"]:
        raise ModelError("the model has no parameters to train", where=type(model).__name__)
    return Layout(
        floats=_pack(rows, ("trainable", "statistic")), counters=_pack(rows, ("counter",))
    )


def _kind(module: nn.Module, name: str, tensor: Tensor) -> Kind:
    if name in module._parameters:
        return "trainable"
    return "statistic" if tensor.is_floating_point() else "counter"


def _pack(
    rows: Mapping[Kind, list[tuple[str, tuple[int, ...], bool]]], kinds: tuple[Kind, ...]
) -> tuple[Entry, ...]:
    entries: list[Entry] = []
    start = 0
    for kind in kinds:
        for key, shape, variance in rows[kind]:
            entries.append(Entry(key, shape, kind, start, variance))
            start = entries[-1].stop
    return tuple(entries)


class ModelTensors:
    """A model's own tensors in a layout's order, found without walking its modules each time.

    What is kept is where modules hold them, not the tensors: a module may put a new one in place.
    """

    def __init__(self, model: nn.Module, layout: Layout) -> None:
        self._layout = layout
        self._slots = [_slot(model, e.key) for e in (*layout.floats, *layout.counters)]

    def load(self, state: ModelState) -> None:
        """Copy flat vectors into the model; every key is written."""
        with torch.no_grad():
            for (held, name), view in zip(
                self._slots, self._layout.views(state).values(), strict=True
            ):
                held[name].copy_(view)

    def read(self, into: ModelState) -> None:
        """Copy the model's values to `into`."""
        views = self._layout.views(into).values()
        with torch.no_grad():
            for (held, name), view in zip(self._slots, views, strict=True):
                view.copy_(held[name])


def _slot(model: nn.Module, key: str) -> tuple[dict[str, Any], str]:
    owner, _, name = key.rpartition(".")
    module = model.get_submodule(owner)
    return (module._parameters if name in module._parameters else module._buffers), name


def read_state(model: nn.Module, layout: Layout) -> ModelState:
    """Copy a model's values into new flat vectors on the CPU."""
    state = layout.empty()
    ModelTensors(model, layout).read(state)
    return state


def load_state(model: nn.Module, layout: Layout, state: ModelState) -> None:
    """Copy flat vectors into a model; every key is written."""
    ModelTensors(model, layout).load(state)
