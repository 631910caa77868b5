"""Pass a batch through a network a second time, at other parameters but otherwise identically."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fleetseg import rng


@dataclass(frozen=True)
class FirstPass:
    """The state before a pass besides the batch and parameters: random generator and buffers.

    Create it before the pass. It holds all buffers of a network, so that everything the network
    counts or averages sees each batch once, not only the running statistics of torch's norm layers.
    """

    rewind_draws: Callable[[], None]
    buffers: list[Tensor]

    @classmethod
    def of(cls, network: nn.Module) -> FirstPass:
        """Record the state of a network."""
        return cls(rng.remember_torch_default(), _copies([*network.buffers()]))


@contextmanager
def second_pass(network: nn.Module, first: FirstPass) -> Iterator[None]:
    """Start from the state before the first pass; then restore the state after it, bit for bit.

    Parameters may be moved inside, in place. Random draws end where those of the first pass did.
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
