"""What a network makes its logits of: the features that its classifier is given."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor, nn

from fleetseg.errors import ModelError
from fleetseg.models.segmenter import Segmenter, crop_back


def classifier_of(model: Segmenter) -> nn.Conv2d:
    """Find the convolution that gives the main logits: the last with a channel for each class.

    Auxiliary heads, children of a network that are called "aux...", are left out.

    Raises:
        ModelError: there is none.
    """
    found = [
        module
        for name, module in model.net.named_modules()
        if isinstance(module, nn.Conv2d)
        and module.out_channels == model.num_classes
        and not name.startswith("aux")
    ]
    if not found:
        raise ModelError(
            f"network '{model.name}' has no convolution that gives its logits",
            expected=f"a Conv2d with {model.num_classes} output channels as its last layer",
            cure="Choose a method that takes no features of pixels",
        )
    return found[-1]


@contextmanager
def watched(model: Segmenter) -> Iterator[list[Tensor]]:
    """Collect, for each forward pass, the features that the classifier is given.

    They are (N, D, h, w), of any resolution, and cover the field of view of the images.
    """
    seen: list[Tensor] = []
    sizes: list[tuple[int, int]] = []
    hooks = [
        model.register_forward_pre_hook(lambda _, args: sizes.append(_size_hw(args[0]))),
        classifier_of(model).register_forward_pre_hook(
            lambda _, args: seen.append(_cropped(args[0], sizes[-1], model.stride))
        ),
    ]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()


def _cropped(features_NDhw: Tensor, size_hw: tuple[int, int], stride: int) -> Tensor:
    height, width = size_hw
    return crop_back(features_NDhw, (height + -height % stride, width + -width % stride), size_hw)


def _size_hw(images_NCHW: Tensor) -> tuple[int, int]:
    return images_NCHW.shape[2], images_NCHW.shape[3]
