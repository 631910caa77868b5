"""Low-rank changes beside frozen convolutions, so that little is trained and little is sent.

LoRA: Hu et al. 2021, arXiv 2106.09685; on a convolution W of k x k: W + B A, with A of k x k to r
channels and B of 1 x 1. The mean over clients of B times that of A is not the mean of B A; so A is
drawn once, the same for all, and stands, as in FFA-LoRA (Sun, Li, Li, Ding 2024, arXiv 2403.12313),
and only B is trained, from zero on. Shapes: O and I channels out and in, R the rank.
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
        """Map (N, I, H, W) as a convolution does."""
        features: Tensor = self._conv_forward(input, self.merged(), self.bias)
        return features

    def merged(self) -> Tensor:
        """Return the weights that a plain convolution would need."""
        with torch.autocast(self.weight.device.type, enabled=False):
            change = self.up @ self.down.flatten(1)
        merged: Tensor = self.weight + change.view(self.weight.shape)
        return merged


def add_adapters(model: nn.Module, rank: int, seed: int) -> None:
    """Freeze a network's body but for its norm layers; its convolutions learn by adapters.

    At first the network computes what it did. Heads stay as they are, and learn.

    Raises:
        ModelError: the network does not say what its head is, or its body has no convolution.
    """
    require_part(model, "head")
    body = [m for name, m in model.named_modules() if is_in("body", name, model)]
    for module in body:
        if not isinstance(module, NORM_LAYERS):
            for parameter in module.parameters(recurse=False):
                parameter.requires_grad_(False)
    # Subclasses may compute something else.
    convolutions = [m for m in body if type(m) is nn.Conv2d and m.groups == 1]
    if not convolutions:
        raise ModelError("the network's body has no convolution to adapt", where="adapter_rank")
    for number, conv in enumerate(convolutions):
        generator = rng.torch_generator(seed, purpose=f"adapter-{number}")
        weight, fan_in = conv.weight, math.prod(conv.weight.shape[1:])
        down = torch.randn((rank, *weight.shape[1:]), generator=generator) / math.sqrt(fan_in)
        up = torch.zeros(weight.shape[0], rank, device=weight.device)
        conv.__class__ = AdaptedConv2d  # all else of it stays
        conv.register_parameter("down", nn.Parameter(down.to(weight.device), requires_grad=False))
        conv.register_parameter("up", nn.Parameter(up))


def merge_adapters(model: nn.Module) -> None:
    """Make adapted convolutions plain ones again, that compute the same."""
    for module in [m for m in model.modules() if isinstance(m, AdaptedConv2d)]:
        with torch.no_grad():
            module.weight.copy_(module.merged())
        del module.down, module.up
        plain: nn.Module = module
        plain.__class__ = nn.Conv2d
