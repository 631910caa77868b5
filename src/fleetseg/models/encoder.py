"""The last features of a network's encoder, as it is and as it was trained on ImageNet.

Shapes: N images, D channels, h and w the features' resolution; they cover the network's input
including padding.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from fleetseg.errors import ConfigError
from fleetseg.models.pretrained import LITE0, has_imagenet, load_imagenet
from fleetseg.models.segmenter import Segmenter


class Trunk(nn.Module):
    """An encoder without a decoder, under the name that it has in a whole network."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, images_NCHW: Tensor) -> Tensor:
        """Return the last features (N, D, h, w) of normalised and padded images."""
        return _last(self.encoder(images_NCHW))


def imagenet_encoder(segmenter: Segmenter, purpose: str) -> Segmenter:
    """Copy a network's encoder, with its ImageNet weights and their normalisation, and freeze it.

    The network is left unchanged, and the copy has none of its values. `purpose` names what needs
    the weights, for the errors.

    Raises:
        ConfigError: there are no such weights for this network.
        MissingExtra: the package with the weights is not installed.
        ModelError: the weights do not fit the encoder.
    """
    if not has_imagenet(segmenter):
        raise ConfigError(
            f"{purpose} needs the encoder's ImageNet weights, and there are none for model "
            f"'{segmenter.name}'",
            expected=f"zoo:<arch>/{LITE0}",
            cure=f"Use such a network, or leave {purpose} out",
        )
    frozen = Segmenter(
        Trunk(copy.deepcopy(segmenter.get_submodule("net.encoder"))),
        name=segmenter.name,
        num_classes=segmenter.num_classes,
        stride=segmenter.stride,
    ).to(segmenter.mean.device)
    load_imagenet(frozen, purpose=purpose)
    return frozen.eval().requires_grad_(False)


@torch.no_grad()
def last_features(frozen: Segmenter, images_NCHW: Tensor) -> Tensor:
    """Return the last features (N, D, h, w) of images in [0, 1], from `imagenet_encoder`."""
    features_NDhw: Tensor = frozen.net(frozen.prepared(images_NCHW))
    return features_NDhw


@contextmanager
def watched_encoder(segmenter: Segmenter) -> Iterator[list[Tensor]]:
    """Collect the encoder's last features inside the block: one (N, D, h, w) for each pass."""
    seen: list[Tensor] = []
    encoder = segmenter.get_submodule("net.encoder")
    handle = encoder.register_forward_hook(lambda _, __, made: seen.append(_last(made)))
    try:
        yield seen
    finally:
        handle.remove()


def _last(made: Tensor | list[Tensor] | tuple[Tensor, ...]) -> Tensor:
    """Return the coarsest of an encoder's features, which come last."""
    return made if isinstance(made, Tensor) else made[-1]
