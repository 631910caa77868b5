"""A batch passed through a network once more, at other parameters and in all else as before."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fleetseg import rng


@dataclass(frozen=True)
class FirstPass:
    """What a pass starts from besides the batch and the parameters: draws and buffers.

    Made before it. Buffers are all of a network's, so that whatever it counts or averages, and not
    only the running statistics of torch's norm layers, sees each batch once.
    """

    rewind_draws: Callable[[], None]
    buffers: list[Tensor]

    @classmethod
    def of(cls, network: nn.Module) -> FirstPass:
        """Remember where a network stands."""
        return cls(rng.remember_torch_default(), _copies([*network.buffers()]))


@contextmanager
def second_pass(network: nn.Module, first: FirstPass) -> Iterator[None]:
    """Start from where the first pass started; leave what the first pass left, bit for bit.

    Parameters may be moved inside, in place. Draws end where those of the first pass did.
    """
    parameters, buffers = _copies([*network.parameters()]), _copies([*network.buffers()])
    first.rewind_draws()
    _put([*network.buffers()], first.buffers)
    try:
        yield
    finally:
        _put([*network.parameters()], parameters)
        _put([*network.buffers()], buffers)


@torch.no_grad()
def _copies(tensors: list[Tensor]) -> list[Tensor]:
    return [tensor.clone() for tensor in tensors]


@torch.no_grad()
def _put(tensors: list[Tensor], values: list[Tensor]) -> None:
    if tensors:
        torch._foreach_copy_(tensors, values)
