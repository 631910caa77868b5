"""Statistics of batch norms: gather them over images, and substitute them for the running ones.

Suffixes: L batch norms, C channels of all of them concatenated. Sums are exact integers, so they
do not depend on the order of batches or clients.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from fleetseg.errors import DataError

Floats_C = npt.NDArray[np.float64]
Statistics = tuple[Tensor, Tensor]
"""Mean and variance of one layer's channels."""
_Found = dict[str, list[tuple[int, Tensor, Tensor]]]  # moments of each layer's inputs in a pass
MAX_SUM = float(2**48)
"""Largest magnitude of one term of an exact sum, which then holds 2**14 of them."""
_FRACTION = float(2**40)


def batch_norms(model: nn.Module) -> dict[str, _BatchNorm]:
    """Return the batch norms with running statistics by name, in the order of model.modules()."""
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, _BatchNorm) and module.running_mean is not None
    }


def channels_of(model: nn.Module) -> npt.NDArray[np.int64]:
    """Return the number of channels of each batch norm."""
    return np.array([module.num_features for module in batch_norms(model).values()], np.int64)


def statistic_keys(model: nn.Module) -> frozenset[str]:
    """Return the state-dict keys of the batch norms' running statistics and counters."""
    names = ("running_mean", "running_var", "num_batches_tracked")
    return frozenset(f"{layer}.{name}" for layer in batch_norms(model) for name in names)


class ExactSum:
    """A sum of float64 vectors, in multiples of 2**-40, with the same bits in any order."""

    def __init__(self, size: int) -> None:
        self._whole = np.zeros(size, np.int64)
        self._rest = np.zeros(size, np.int64)
        self._lost = np.zeros(size, np.bool_)

    def add(self, values_C: Floats_C) -> None:
        """Add a vector; an element that is not finite, or exceeds MAX_SUM, makes its sum NaN."""
        held_C = np.abs(values_C) <= MAX_SUM
        self._lost |= ~held_C
        values_C = np.where(held_C, values_C, 0.0)
        whole_C = np.floor(values_C)
        self._whole += whole_C.astype(np.int64)
        self._rest += np.rint((values_C - whole_C) * _FRACTION).astype(np.int64)

    @property
    def total(self) -> Floats_C:
        """The sum so far."""
        total_C: Floats_C = np.where(self._lost, np.nan, self._whole + self._rest / _FRACTION)
        return total_C


@dataclass(frozen=True)
class NormSums:
    """The number of values that each batch norm saw, their sums, and the sums of their squares."""

    counts_L: npt.NDArray[np.int64]
    sums_C: Floats_C
    squares_C: Floats_C


class NormSumming:
    """Adds up `NormSums`."""

    def __init__(self, num_layers: int, num_channels: int) -> None:
        self._counts = np.zeros(num_layers, np.int64)
        self._sums, self._squares = ExactSum(num_channels), ExactSum(num_channels)

    def add(self, more: NormSums) -> None:
        """Add more sums."""
        self._counts += more.counts_L
        self._sums.add(more.sums_C)
        self._squares.add(more.squares_C)

    @property
    def total(self) -> NormSums:
        """The total so far."""
        return NormSums(self._counts.copy(), self._sums.total, self._squares.total)


def layer_moments(features: Tensor) -> tuple[int, Tensor, Tensor]:
    """Return the number of values per channel of (N, C, ...), their mean and biased variance."""
    dims = [0, *range(2, features.ndim)]
    var_C, mean_C = torch.var_mean(features.float(), dims, correction=0)
    return features.numel() // features.shape[1], mean_C, var_C


@contextmanager
def normalised(
    model: nn.Module, choose: Callable[[str, Tensor], Statistics | None]
) -> Iterator[None]:
    """Make batch norms in evaluation mode use the statistics that `choose` returns for their input.

    If `choose(layer, input)` returns None, the layer uses the statistics it holds. All running
    statistics are restored afterwards.
    """

    def put(layer: str, module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        chosen = choose(layer, inputs[0])
        if chosen is not None:
            _set(module, chosen)

    with _own_kept(model) as layers:
        hooks = [
            module.register_forward_pre_hook(partial(put, name)) for name, module in layers.items()
        ]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()


@contextmanager
def _own_kept(model: nn.Module) -> Iterator[dict[str, _BatchNorm]]:
    layers = batch_norms(model)
    own = {name: own_statistics(module) for name, module in layers.items()}
    try:
        yield layers
    finally:
        for name, module in layers.items():
            _set(module, own[name])


def own_statistics(module: _BatchNorm) -> Statistics:
    """Copy a layer's running statistics."""
    assert module.running_mean is not None
    assert module.running_var is not None
    return module.running_mean.clone(), module.running_var.clone()


def _set(module: nn.Module, statistics: Statistics) -> None:
    with torch.no_grad():
        for buffer, values_C in zip(("running_mean", "running_var"), statistics, strict=True):
            held = module._buffers[buffer]
            assert held is not None
            held.copy_(values_C)


def gather(
    model: nn.Module, passes: Iterable[Callable[[], object]], *, lone: bool = False
) -> NormSums:
    """Sum the inputs of every batch norm while a model in evaluation mode processes batches.

    As in training, and as in torch's `update_bn`, each layer normalises with the statistics of the
    current batch, so a layer's input depends on which images share a batch (not on the order of
    batches). Dropout is off, and layers used only in training (auxiliary heads) see nothing.

    Args:
        model: in evaluation mode; left unchanged.
        passes: each sends one batch through the model.
        lone: if a batch gives a layer one value per channel, normalise it with the statistics that
            the layer holds, as in training; otherwise it is an error.

    Raises:
        DataError: see `lone`.
    """
    layers = batch_norms(model)
    found: _Found = {}

    def choose(layer: str, features: Tensor) -> Statistics | None:
        count, mean_C, var_C = layer_moments(features)
        found.setdefault(layer, []).append((count, mean_C, var_C))  # layers may be used repeatedly
        if count > 1:
            return mean_C, var_C
        if not lone:
            raise lone_value(layer)
        return None

    summing = NormSumming(len(layers), sum(m.num_features for m in layers.values()))
    with normalised(model, choose):
        for look in passes:
            found.clear()
            look()
            summing.add(_sums(layers, found))
    return summing.total


def _sums(layers: Mapping[str, _BatchNorm], found: _Found) -> NormSums:
    sizes = [module.num_features for module in layers.values()]
    total = NormSums(np.zeros(len(sizes), np.int64), np.zeros(sum(sizes)), np.zeros(sum(sizes)))
    start = 0
    for number, (name, size) in enumerate(zip(layers, sizes, strict=True)):
        for count, mean, var in found.get(name, ()):
            mean_C, var_C = (part.cpu().numpy().astype(np.float64) for part in (mean, var))
            total.counts_L[number] += count
            total.sums_C[start : start + size] += count * mean_C
            total.squares_C[start : start + size] += count * (var_C + mean_C**2)
        start += size
    return total


def lone_value(layer: str) -> DataError:
    """Build the error for a layer that sees one value per channel."""
    return DataError(
        "one image alone gives a norm layer one value per channel, which has no variance",
        where=layer.removeprefix("net."),
        cure="Score two images or more at a time: a larger batch size, and domains of several "
        "images (evaluation.by); or norm statistics = 'running'",
    )


def statistics_of(model: nn.Module, sums: NormSums) -> dict[str, Statistics]:
    """Return the statistics of every layer that saw two or more values.

    mu = S / n and, like torch's running variance, v = (S2 - n mu^2) / (n - 1): the statistics of
    all values together, however they were divided into batches or among clients.
    """
    made: dict[str, Statistics] = {}
    start = 0
    for number, (name, module) in enumerate(batch_norms(model).items()):
        count, span = int(sums.counts_L[number]), slice(start, start + module.num_features)
        start = span.stop
        if count < 2:
            continue
        mean_C = sums.sums_C[span] / count
        var_C = (sums.squares_C[span] / count - mean_C**2) * (count / (count - 1))
        both = (mean_C, np.maximum(var_C, 0.0))
        made[name] = (torch.from_numpy(both[0]).float(), torch.from_numpy(both[1]).float())
    return made


def put_statistics(model: nn.Module, statistics: dict[str, Statistics]) -> None:
    """Write statistics into a model; other layers keep theirs."""
    layers = batch_norms(model)
    for name, pair in statistics.items():
        _set(layers[name], pair)


@contextmanager
def lent_statistics(model: nn.Module, statistics: dict[str, Statistics]) -> Iterator[None]:
    """Put statistics into a model for the duration of the block."""
    with _own_kept(model):
        put_statistics(model, statistics)
        yield
