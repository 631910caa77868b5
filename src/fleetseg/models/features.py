"""The features that a network turns into classes, whichever network it is.

Shapes: N images, D channels of features, h and w their resolution; they cover what the network saw,
its padding included.
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
    """Collect what passes inside the block give to a classifier: one (N, D, h, w) for each."""
    seen: list[Tensor] = []
    module = segmenter.get_submodule(classifier)
    handle = module.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    try:
        yield seen
    finally:
        handle.remove()


def within_image(segmenter: Segmenter, features_NDhw: Tensor, size_hw: tuple[int, int]) -> Tensor:
    """Cut what covers a padded image to an image of this size."""
    return crop_back(features_NDhw, segmenter.padded_hw(size_hw), size_hw)


def find_classifier(segmenter: Segmenter, size_hw: tuple[int, int]) -> str:
    """Name the convolution that makes logits of features, by a pass on a black image.

    It is the one with a channel for each class that is met first on the way back from the logits,
    along autograd's graph, where auxiliary heads are not. Of several whose outputs are added, it is
    the one with the most features. The network is looked at in eval mode and is left as it was.

    Raises:
        ModelError: there is none.
    """
    device = next(segmenter.parameters(), torch.empty(0)).device
    image_NCHW = torch.zeros(1, 3, *size_hw, device=device, requires_grad=True)
    made: dict[Any, str] = {}  # by autograd's node of what it gave

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
    """List what is met on the ways back from a node that nothing else of it lies before."""
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
    """Put a network into eval mode inside the block, and each module back into its own after it."""
    modes = [(module, module.training) for module in segmenter.modules()]
    segmenter.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode
