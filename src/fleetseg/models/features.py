"""Find and collect the features from which any network predicts classes.

Shapes: N images, D channels of features, h and w their resolution; they cover the network's input
including padding.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from fleetseg.errors import ModelError
from fleetseg.models.segmenter import Segmenter, crop_back


@contextmanager
def watched_features(segmenter: Segmenter, classifier: str) -> Iterator[list[Tensor]]:
    """Collect the inputs of a classifier layer inside the block: one (N, D, h, w) for each pass."""
    seen: list[Tensor] = []
    module = segmenter.get_submodule(classifier)
    handle = module.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    try:
        yield seen
    finally:
        handle.remove()


def within_image(segmenter: Segmenter, features_NDhw: Tensor, size_hw: tuple[int, int]) -> Tensor:
    """Crop features of a padded image to the area of the image, of size `size_hw`."""
    return crop_back(features_NDhw, segmenter.padded_hw(size_hw), size_hw)


def find_classifier(segmenter: Segmenter, size_hw: tuple[int, int]) -> str:
    """Find the convolution that turns features into logits, by a pass on a black image.

    It is the first convolution with one channel per class that is reached backwards from the logits
    along autograd's graph, which excludes auxiliary heads. If the outputs of several are added, it
    is the one with the most features. The network is examined in eval mode and left unchanged.

    Raises:
        ModelError: there is none.
    """
    device = next(segmenter.parameters(), torch.empty(0)).device
    image_NCHW = torch.zeros(1, 3, *size_hw, device=device, requires_grad=True)
    made: dict[Any, str] = {}  # autograd node of the output -> module name

    def note(name: str, output: Tensor) -> None:
        if output.grad_fn is not None:
            made[output.grad_fn] = name

    handles = [
        module.register_forward_hook(lambda _, __, output, name=name: note(name, output))
        for name, module in segmenter.named_modules()
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d)
        and module.out_channels == segmenter.num_classes
    ]
    try:
        with evaluating(segmenter), torch.enable_grad():
            logits_NCHW = segmenter(image_NCHW)
            names = _first_met(logits_NCHW.grad_fn, made)
    finally:
        for handle in handles:
            handle.remove()
    if not names:
        raise ModelError(
            f"network '{segmenter.name}' has no features to compare",
            expected=f"a convolution to {segmenter.num_classes} channels, one for each class, "
            "whose output becomes the logits",
        )
    return max(names, key=lambda name: _num_features(segmenter, name))


def _first_met(start: Any, made: dict[Any, str]) -> list[str]:
    """Return the modules in `made` that are reached first on each path backwards from a node."""
    names, seen, ahead = [], {start}, [start]
    while ahead:
        node = ahead.pop()
        if node in made:
            names.append(made[node])
            continue
        found = {before for before, _ in node.next_functions if before is not None} - seen
        seen |= found
        ahead += found
    return sorted(names)


def _num_features(segmenter: Segmenter, name: str) -> int:
    module = segmenter.get_submodule(name)
    assert isinstance(module, nn.Conv2d | nn.ConvTranspose2d)
    return module.in_channels


@contextmanager
def evaluating(segmenter: Segmenter) -> Iterator[None]:
    """Put a network into eval mode inside the block, then restore the mode of each module."""
    modes = [(module, module.training) for module in segmenter.modules()]
    segmenter.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode
