"""Wrap any network, whoever wrote it, as a Segmenter, with the same protections for all."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedBuffer, is_lazy

from fleetseg import rng
from fleetseg.errors import FleetSegError, ModelError
from fleetseg.models.layers import adapt_layers
from fleetseg.models.segmenter import IMAGENET_MEAN, IMAGENET_STD, Segmenter

TRUNKS = ("encoder", "backbone")
"""Names of the part other than the head in segmentation-models-pytorch and torchvision."""


def wrapped(
    net: nn.Module,
    num_classes: int,
    *,
    name: str,
    mean: Sequence[float] = IMAGENET_MEAN,
    std: Sequence[float] = IMAGENET_STD,
    stride: int | None = None,
    head_prefixes: Sequence[str] | None = None,
) -> Segmenter:
    """Wrap a network of another package or of the user; its weights are unchanged.

    Its plain BatchNorm2d and depthwise Conv2d are converted to ours in place (see `layers`).
    `stride` defaults to `encoder.output_stride` if it exists, else 1. `head_prefixes`, which refer
    to the network's own keys, default to all children except an encoder or backbone.
    """
    adapt_layers(net)
    if stride is None:
        stride = int(getattr(getattr(net, "encoder", None), "output_stride", 1))
    if head_prefixes is None:
        head_prefixes = _heads(net)
    return Segmenter(
        net,
        name=name,
        num_classes=num_classes,
        mean=mean,
        std=std,
        stride=stride,
        head_prefixes=tuple(f"net.{prefix}" for prefix in head_prefixes),
    )


def copied_net(net: nn.Module) -> nn.Module:
    """Copy a network; unlike a plain deep copy, this supports lazy batch norms."""
    lazy = {id(buffer): buffer for buffer in net.buffers() if is_lazy(buffer)}
    fresh = {key: _like(buffer) for key, buffer in lazy.items()}
    return copy.deepcopy(net, fresh)


def materialise(segmenter: Segmenter, size_hw: tuple[int, int], *, seed: int = 0) -> None:
    """Give lazy layers their shapes and weights, by a pass on a black image of `size_hw`.

    Raises:
        ModelError: the pass fails, or the network has lazy layers that it uses in training only.
    """
    if not _lazy(segmenter):
        return
    was_training = segmenter.training
    try:
        with rng.torch_default(seed, purpose="model"), torch.no_grad():
            segmenter.eval()(torch.zeros(1, 3, *size_hw))
    except FleetSegError:
        raise
    except Exception as error:
        raise ModelError(
            f"the lazy layers of network '{segmenter.name}' cannot be initialised "
            f"({type(error).__name__}: {error})",
            where=f"an image of {size_hw[1]}x{size_hw[0]}",
            cure="Pass a batch through the network before you hand it over",
        ) from error
    finally:
        segmenter.train(was_training)
    if left := _lazy(segmenter):
        raise ModelError(
            f"network '{segmenter.name}' has lazy layers that it uses in training only",
            where=left[0].removeprefix("net."),
            cure="Pass a batch through the network in training mode before you hand it over",
        )
    adapt_layers(segmenter.net)  # lazy layers become plain ones with their first batch


def _heads(net: nn.Module) -> list[str]:
    children = [name for name, _ in net.named_children()]
    trunk = next((name for name in TRUNKS if name in children), None)
    return [] if trunk is None else [f"{name}." for name in children if name != trunk]


def _like(buffer: Tensor) -> Tensor:
    like: Any = UninitializedBuffer  # torch's type stub lacks some of its arguments
    return cast(Tensor, like(requires_grad=False, device=buffer.device, dtype=buffer.dtype))


def _lazy(net: nn.Module) -> list[str]:
    named = (*net.named_parameters(), *net.named_buffers())
    return [name for name, tensor in named if is_lazy(tensor)]
