"""Low-rank adapters beside frozen convolutions, so that little is trained and little is sent.

LoRA: Hu et al. 2021, arXiv 2106.09685; for a k x k convolution W: W + B A, where A is k x k with R
output channels and B is 1 x 1. The mean of B times the mean of A over clients is not the mean of
B A. Therefore A is drawn once, the same for all clients, and stays frozen, as in FFA-LoRA (Sun, Li,
Li, Ding 2024, arXiv 2403.12313); only B is trained, starting from zero. Shapes: O and I output and
input channels, R the rank.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from fleetseg import rng
from fleetseg.errors import ModelError
from fleetseg.learning.parameters import NORM_LAYERS
from fleetseg.learning.parts import is_in, require_part


class AdaptedConv2d(nn.Conv2d):
    """A convolution with the weights W + B A."""

    down: nn.Parameter  # A: (R, I, k, k)
    up: nn.Parameter  # B: (O, R)

    def forward(self, input: Tensor) -> Tensor:
        """Convolve (N, I, H, W) with the merged weights."""
        features: Tensor = self._conv_forward(input, self.merged(), self.bias)
        return features

    def merged(self) -> Tensor:
        """Return the weights of the equivalent plain convolution."""
        with torch.autocast(self.weight.device.type, enabled=False):
            change = self.up @ self.down.flatten(1)
        merged: Tensor = self.weight + change.view(self.weight.shape)
        return merged


def add_adapters(model: nn.Module, rank: int, seed: int) -> None:
    """Freeze a network's body except its norm layers, and add adapters to its convolutions.

    Initially the network's output is unchanged. Heads stay as they are, and trainable.

    Raises:
        ModelError: the network does not define its head, or its body has no convolution.
    """
    require_part(model, "head")
    body = [m for name, m in model.named_modules() if is_in("body", name, model)]
    for module in body:
        if not isinstance(module, NORM_LAYERS):
            for parameter in module.parameters(recurse=False):
                parameter.requires_grad_(False)
    # Skip subclasses, which may compute something else.
    convolutions = [m for m in body if type(m) is nn.Conv2d and m.groups == 1]
    if not convolutions:
        raise ModelError("the network's body has no convolution to adapt", where="adapter_rank")
    for number, conv in enumerate(convolutions):
        generator = rng.torch_generator(seed, purpose=f"adapter-{number}")
        weight, fan_in = conv.weight, math.prod(conv.weight.shape[1:])
        down = torch.randn((rank, *weight.shape[1:]), generator=generator) / math.sqrt(fan_in)
        up = torch.zeros(weight.shape[0], rank, device=weight.device)
        conv.__class__ = AdaptedConv2d  # everything else is kept
        conv.register_parameter("down", nn.Parameter(down.to(weight.device), requires_grad=False))
        conv.register_parameter("up", nn.Parameter(up))


def merge_adapters(model: nn.Module) -> None:
    """Turn adapted convolutions back into plain ones that compute the same."""
    for module in [m for m in model.modules() if isinstance(m, AdaptedConv2d)]:
        with torch.no_grad():
            module.weight.copy_(module.merged())
        del module.down, module.up
        plain: nn.Module = module
        plain.__class__ = nn.Conv2d
