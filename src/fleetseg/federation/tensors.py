"""A model's state as two flat vectors, split once by module type.

Every state-dict key is one of three kinds (contract 3 of docs/architecture.md):

* trainable  parameters: what server optimisers, clipping and codecs may touch;
* statistic  floating-point buffers (running mean and variance of norm layers, any other);
* counter    integer buffers (`num_batches_tracked`, index tables): never averaged.

The kind comes from the module that owns the key, never from the key's name. A fourth kind, "extra",
is what a method sends with a model: named vectors as long as the trainable values, such as
SCAFFOLD's variates, or of another length. Two more kinds are only sent to clients: a "reference"
belongs to another model, such as a teacher, and has all its floats; a "copy" is what another
cluster of vehicles has in place of some tensors. Suffixes of vectors here: F = all floats
(trainable first, then statistics, then extras, then references and copies), T = trainable,
K = counters.
"""

from __future__ import annotations

import hashlib
import json
import math
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from fleetseg.errors import ModelError
from fleetseg.learning.parameters import NORM_LAYERS, head_prefixes

_EXTRA = "//"  # separates an extra's name from a parameter's: no state-dict key contains it
Kind = Literal["trainable", "statistic", "counter", "extra", "reference", "copy"]


@dataclass(frozen=True)
class Entry:
    """One state-dict key and its place in the flat vector."""

    key: str
    shape: tuple[int, ...]
    kind: Kind
    start: int
    is_variance: bool = False
    in_norm: bool = False  # its module is a norm layer
    in_head: bool = False  # its module belongs to the network's head
    is_frozen: bool = False  # a parameter that never learns

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
    """The keys of a model in canonical order, on which both sides of the wire must agree."""

    floats: tuple[Entry, ...]
    counters: tuple[Entry, ...]

    def __getstate__(self) -> dict[str, object]:
        """Leave out derived tensors: torch passes tensors to a new process as open files."""
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
    def spans(self) -> dict[str, slice]:
        """The slices of the floats that hold extras, by name."""
        spans: dict[str, slice] = {}
        for entry in self.floats:
            if entry.kind == "extra":
                name = entry.key.partition(_EXTRA)[0]
                start = spans[name].start if name in spans else entry.start
                spans[name] = slice(start, entry.stop)
        return spans

    @cached_property
    def variances_V(self) -> Tensor:
        """Positions of the running variances in the floats (int64)."""
        parts = [torch.arange(e.start, e.stop) for e in self.floats if e.is_variance]
        return torch.cat(parts) if parts else torch.empty(0, dtype=torch.int64)

    @cached_property
    def means_V(self) -> Tensor:
        """Positions in the floats of the running means that belong to `variances_V`."""
        means = [
            self.by_key[f"{e.key.removesuffix('running_var')}running_mean"]
            for e in self.floats
            if e.is_variance
        ]
        parts = [torch.arange(e.start, e.stop) for e in means]
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

    def only(self, keep: Callable[[Entry], bool]) -> Layout:
        """Return the layout of a part: the entries that `keep` accepts, in order, without gaps."""
        return Layout(_placed(filter(keep, self.floats)), _placed(filter(keep, self.counters)))

    def with_extras(self, names: Sequence[str]) -> Layout:
        """Append a vector as long as the trainable values for each name."""
        trainable = [e for e in self.floats if e.kind == "trainable"]
        extras = [
            replace(e, key=f"{name}{_EXTRA}{e.key}", kind="extra")
            for name in names
            for e in trainable
        ]
        return Layout(_placed((*self.floats, *extras)), self.counters)

    def with_vector(self, name: str, sizes: Mapping[str, int]) -> Layout:
        """Append one extra made of vectors of these sizes, by key; none if there are none."""
        own = [Entry(f"{name}{_EXTRA}{key}", (size,), "extra", 0) for key, size in sizes.items()]
        return Layout(_placed((*self.floats, *own)), self.counters) if own else self

    def without_extras(self, names: Sequence[str]) -> Layout:
        """Leave out the extras with these names."""
        if not names:
            return self
        return self.only(lambda e: e.kind != "extra" or e.key.partition(_EXTRA)[0] not in names)

    def with_copies(self, part: Layout, count: int) -> Layout:
        """Append `count` copies of a part, one after another, counters included."""
        floats, counters = [*self.floats], [*self.counters]
        for copy in range(1, count + 1):
            for entry in part.floats:
                key = f"{copy}{_EXTRA}{entry.key}"
                floats.append(replace(entry, key=key, kind="copy", is_variance=False))
            counters += [replace(e, key=f"{copy}{_EXTRA}{e.key}") for e in part.counters]
        return Layout(_placed(floats), _placed(counters)) if count else self

    def with_references(self, names: Sequence[str]) -> Layout:
        """Append, for each name, another model's values: a vector as long as all floats."""
        others = [
            replace(e, key=f"{name}{_EXTRA}{e.key}", kind="reference", is_variance=False)
            for name in names
            for e in self.floats
            if e.kind != "extra"
        ]
        return Layout(_placed((*self.floats, *others)), self.counters) if names else self

    def empty(self) -> ModelState:
        """Return new flat vectors on the CPU, uninitialised."""
        return ModelState(
            torch.empty(self.num_floats), torch.empty(self.num_counters, dtype=torch.int64)
        )

    def views(self, state: ModelState) -> dict[str, Tensor]:
        """Return a view into the flat vectors for every key."""
        named: dict[str, Tensor] = {}
        for entries, flat in ((self.floats, state.values_F), (self.counters, state.counters_K)):
            # One call for all slices: a model has hundreds, and each client needs them in a round.
            parts = flat.split_with_sizes([e.size for e in entries]) if entries else ()
            for entry, part in zip(entries, parts, strict=True):
                named[entry.key] = part if len(entry.shape) == 1 else part.view(entry.shape)
        return named


@dataclass(frozen=True)
class ModelState:
    """All values of a model: `values_F` float32 (trainable first), `counters_K` int64."""

    values_F: Tensor
    counters_K: Tensor

    def __getstate__(self) -> dict[str, bytes]:
        """Return the values as bytes: torch passes tensors to a new process as open files."""
        return {name: tensor.numpy().tobytes() for name, tensor in vars(self).items()}

    def __setstate__(self, state: dict[str, bytes]) -> None:
        """Restore the values from bytes."""
        dtypes = {"values_F": torch.float32, "counters_K": torch.int64}
        for name, data in state.items():
            empty = torch.empty(0, dtype=dtypes[name])
            tensor = torch.frombuffer(bytearray(data), dtype=dtypes[name]) if data else empty
            object.__setattr__(self, name, tensor)

    def clone(self) -> ModelState:
        """Copy both vectors."""
        return ModelState(self.values_F.clone(), self.counters_K.clone())

    def digest(self) -> str:
        """SHA-256 of the values: equal if and only if two states have the same bits."""
        # `.data` and not memoryview().cast, which refuses a model without counters.
        hasher = hashlib.sha256(self.values_F.numpy().data)
        hasher.update(self.counters_K.numpy().data)
        return hasher.hexdigest()


Run = tuple[slice, slice]


@dataclass(frozen=True)
class Part:
    """Where the values of a part lie in the whole: pairs of slices (of the whole, of the part)."""

    floats: tuple[Run, ...]
    counters: tuple[Run, ...]

    @classmethod
    def of(cls, whole: Layout, part: Layout) -> Part:
        """Locate every entry of a part in a whole that contains them all."""
        return cls(_runs(whole, part.floats), _runs(whole, part.counters))

    def take(self, whole: ModelState, into: ModelState) -> None:
        """Copy the part out of the whole."""
        for there, here in self.floats:
            into.values_F[here] = whole.values_F[there]
        for there, here in self.counters:
            into.counters_K[here] = whole.counters_K[there]

    def put(self, part: ModelState, into: ModelState) -> None:
        """Copy the part into its place in the whole."""
        for there, here in self.floats:
            into.values_F[there] = part.values_F[here]
        for there, here in self.counters:
            into.counters_K[there] = part.counters_K[here]


def _runs(whole: Layout, entries: Iterable[Entry]) -> tuple[Run, ...]:
    runs: list[Run] = []
    for entry in entries:
        start = whole.by_key[entry.key].start
        if runs and (runs[-1][0].stop, runs[-1][1].stop) == (start, entry.start):
            runs[-1] = (
                slice(runs[-1][0].start, start + entry.size),
                slice(runs[-1][1].start, entry.stop),
            )
        else:
            runs.append((slice(start, start + entry.size), slice(entry.start, entry.stop)))
    return tuple(runs)


def layout_of(model: nn.Module) -> Layout:
    """Sort a model's state-dict keys into trainable, statistic and counter.

    Raises:
        ModelError: for floating-point tensors that are not float32, or a model without parameters.
    """
    heads = head_prefixes(model)
    entries: list[Entry] = []
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
        entry = Entry(
            key,
            tuple(tensor.shape),
            kind,
            start=0,
            is_variance=isinstance(module, _NormBase) and name == "running_var",
            in_norm=isinstance(module, NORM_LAYERS),
            in_head=f"{key}.".startswith(heads),
            is_frozen=kind == "trainable" and not module.get_parameter(name).requires_grad,
        )
        entries.append(entry)
    trainable, statistics, counters = (
        [e for e in entries if e.kind == kind] for kind in ("trainable", "statistic", "counter")
    )
    if not trainable:
        raise ModelError("the model has no parameters to train", where=type(model).__name__)
    return Layout(_placed([*trainable, *statistics]), _placed(counters))


def _kind(module: nn.Module, name: str, tensor: Tensor) -> Kind:
    if name in module._parameters:
        return "trainable"
    return "statistic" if tensor.is_floating_point() else "counter"


def _placed(entries: Iterable[Entry]) -> tuple[Entry, ...]:
    """Place entries one after another."""
    placed: list[Entry] = []
    start = 0
    for entry in entries:
        placed.append(entry if entry.start == start else replace(entry, start=start))
        start = placed[-1].stop
    return tuple(placed)


class ModelTensors:
    """A model's tensors in a layout's order, found without walking its modules each time.

    The layout may cover a part of the model; nothing else is read or written. The object remembers
    where modules hold tensors, not the tensors: a module may replace one.
    """

    def __init__(self, model: nn.Module, layout: Layout) -> None:
        self._layout = layout
        self._slots = [_slot(model, e.key) for e in (*layout.floats, *layout.counters)]
        self._cut: dict[int, tuple[weakref.ref[ModelState], list[Tensor]]] = {}

    def trainables(self) -> list[Tensor]:
        """Return the parameters, in the order of the layout's trainable values."""
        kinds = (e.kind for e in (*self._layout.floats, *self._layout.counters))
        return [
            held[name]
            for (held, name), kind in zip(self._slots, kinds, strict=True)
            if kind == "trainable"
        ]

    def load(self, state: ModelState) -> None:
        """Copy flat vectors into the model; every key of the layout is written."""
        with torch.no_grad():
            for (held, name), view in zip(self._slots, self._views(state), strict=True):
                held[name].copy_(view)

    def read(self, into: ModelState) -> None:
        """Copy the model's values to `into`."""
        with torch.no_grad():
            for (held, name), view in zip(self._slots, self._views(into), strict=True):
                view.copy_(held[name])

    def read_change(self, into: ModelState, base: ModelState) -> None:
        """Write the difference between the model and a base to `into`; counters as they stand.

        A model in CPU memory takes a single pass, since reading memory is what costs.
        """
        slots = zip(self._slots, self._views(into), self._views(base), strict=True)
        with torch.no_grad():
            for (held, name), view, of_base in slots:
                value = held[name]
                if not view.is_floating_point():
                    view.copy_(value)
                elif value.is_cpu:
                    torch.sub(value, of_base, out=view)
                else:
                    view.copy_(value).sub_(of_base)

    def _views(self, state: ModelState) -> list[Tensor]:
        """Cut a state into the layout's tensors, once: all clients in a process share one model.

        The views are dropped with the state, so that this cache keeps no state in memory.
        """
        key, cut = id(state), self._cut
        if key not in cut or cut[key][0]() is not state:
            views = list(self._layout.views(state).values())
            cut[key] = weakref.ref(state, lambda _: cut.pop(key, None)), views
        return cut[key][1]


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
