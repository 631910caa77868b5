"""A tiny network for whose encoder there are "ImageNet weights", which are made up."""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, nn

from fleetseg import rng
from fleetseg.models.pretrained import LITE0
from fleetseg.models.segmenter import Segmenter
from fleetseg.models.wrapping import wrapped

CHANNELS = 4


def tiny_network(classes: int = 11, seed: int = 0) -> Segmenter:
    """A random network: an encoder to features of stride 2, and a head."""
    with rng.torch_default(seed, purpose="tiny-network"):
        encoder = nn.Sequential(
            nn.Conv2d(3, CHANNELS, 3, stride=2, padding=1), nn.BatchNorm2d(CHANNELS), nn.ReLU()
        )
        head = nn.Conv2d(CHANNELS, classes, 1)
    net = nn.Sequential(OrderedDict(encoder=encoder, head=head))
    return wrapped(net, classes, name=f"tiny/{LITE0}", stride=2)


def made_up_tensors(purpose: str = "") -> dict[str, Tensor]:
    """What a file of weights for that encoder would hold, the classifier's included."""
    draw = rng.torch_generator(7, purpose="made-up-tensors")
    shapes = {
        "_conv_stem.weight": (CHANNELS, 3, 3, 3),
        "_conv_stem.bias": (CHANNELS,),
        "_bn0.weight": (CHANNELS,),
        "_bn0.bias": (CHANNELS,),
        "_bn0.running_mean": (CHANNELS,),
        "_bn0.running_var": (CHANNELS,),
        "_conv_head.weight": (8, CHANNELS, 1, 1),
        "_bn1.weight": (8,),
        "_fc.weight": (9, 8),
    }
    return {name: torch.rand(shape, generator=draw) + 0.5 for name, shape in shapes.items()}
