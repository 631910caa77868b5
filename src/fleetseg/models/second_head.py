"""A second head for any network: another classifier on the features of its own.

It is a copy of the convolution that produces the logits, with weights of its own, and part of the
state that is trained and exchanged. Only training uses it: predictions are the first head's, and a
saved model has no second head.

Shapes: N images, C classes, h and w the resolution of the network's own output.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from fleetseg import rng
from fleetseg.errors import ModelError
from fleetseg.models.features import evaluating, find_classifier
from fleetseg.models.segmenter import Segmenter, unpacked

_NAME = "second_head"
PREFIX = f"{_NAME}."
"""Prefix of the state-dict keys of a second head."""
_TOLERANCE = 1e-3  # of the largest logit: more than rounding, less than another pixel


class SecondHead(nn.Module):
    """A classifier beside the network's own; `beside` is the name of the latter."""

    def __init__(self, layer: nn.Module, beside: str) -> None:
        super().__init__()
        self.layer = layer
        self.beside = beside

    def forward(self, features_NDhw: Tensor) -> Tensor:
        """Map features to logits, as the layer that it is a copy of."""
        logits_NChw: Tensor = self.layer(features_NDhw)
        return logits_NChw


def add_second_head(segmenter: Segmenter, size_hw: tuple[int, int], seed: int) -> None:
    """Add a second head, initialised as the layer's type is, from `seed`.

    A copy of the first head's weights would have its gradients too, and never differ from it.

    Raises:
        ModelError: the network has no classifier, or its logits are not that layer's output alone.
    """
    name = find_classifier(segmenter, size_hw)
    layer = copy.deepcopy(segmenter.get_submodule(name))
    assert isinstance(layer, nn.Conv2d | nn.ConvTranspose2d)
    # Draw on the CPU and in torch's default order: the same weights for any device and format.
    fresh = copy.deepcopy(layer).cpu().to(memory_format=torch.contiguous_format)
    with rng.torch_default(seed, purpose="second-head"):
        fresh.reset_parameters()
    layer.load_state_dict(fresh.state_dict())
    segmenter.second_head = SecondHead(layer, name)
    if segmenter.head_prefixes:  # a network that does not define its head still does not
        segmenter.head_prefixes = (*segmenter.head_prefixes, PREFIX)
    _require_two_heads(segmenter, size_hw)


def drop_second_head(segmenter: Segmenter) -> None:
    """Remove the second head, if there is one: what is left is the network as it was built."""
    segmenter.second_head = None
    segmenter.head_prefixes = tuple(p for p in segmenter.head_prefixes if p != PREFIX)


def head_parameters(segmenter: Segmenter) -> list[nn.Parameter]:
    """Return the parameters of both heads."""
    head = _second_head(segmenter)
    return [*segmenter.get_submodule(head.beside).parameters(), *head.parameters()]


@contextmanager
def both_heads(segmenter: Segmenter) -> Iterator[None]:
    """Have a network return (logits, second head's logits, *auxiliary logits) inside the block.

    This applies to training mode; in eval mode there are only the first. Both heads see the same
    features, and what follows the classifier in the network sees both outputs, as one batch.
    """
    head = _second_head(segmenter)

    def double(_: nn.Module, args: tuple[Tensor, ...], logits_NChw: Tensor) -> Tensor:
        return torch.cat([logits_NChw, head(args[0])])

    def split(_: nn.Module, __: object, outputs: object) -> tuple[object, ...]:
        main, *others = unpacked(outputs)
        halves = main.chunk(2) if isinstance(main, Tensor) else (main,)
        return (*halves, *others)

    handles = [
        segmenter.get_submodule(head.beside).register_forward_hook(double),
        segmenter.net.register_forward_hook(split),
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _second_head(segmenter: Segmenter) -> SecondHead:
    assert isinstance(segmenter.second_head, SecondHead), "add_second_head comes first"
    return segmenter.second_head


def _require_two_heads(segmenter: Segmenter, size_hw: tuple[int, int]) -> None:
    """Refuse networks whose first head gives other logits if there is a second one beside it."""
    device = next(segmenter.parameters()).device
    shape = (2, 3, *size_hw)
    ramp = torch.linspace(0, 1, 6 * size_hw[0] * size_hw[1], device=device)
    with evaluating(segmenter), torch.no_grad():
        alone = segmenter(ramp.view(shape))
        try:
            with both_heads(segmenter):
                beside = segmenter(ramp.view(shape))
            is_same = bool((alone - beside).abs().max() <= _TOLERANCE * alone.abs().max())
        except (RuntimeError, ModelError):
            is_same = False
    if not is_same:
        raise ModelError(
            f"network '{segmenter.name}' cannot have a second head",
            where=_second_head(segmenter).beside,
            expected="logits that are the output of one convolution, resized at most",
            cure="Choose another network",
        )
