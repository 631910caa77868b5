"""Build networks by name, from one table with one function, or wrap a user's own network."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import nn

from fleetseg import rng
from fleetseg.config import ModelConfig
from fleetseg.errors import ModelError, unknown_name
from fleetseg.models import bisenetv2, fast_scnn
from fleetseg.models.group_norm import use_group_norms
from fleetseg.models.pretrained import load_imagenet
from fleetseg.models.segmenter import IMAGENET_MEAN, IMAGENET_STD, Segmenter
from fleetseg.models.wrapping import wrapped
from fleetseg.models.zoo import PREFIX, build_zoo


def _fast_scnn(name: str, num_classes: int, *, aux: bool = False) -> Segmenter:
    net = fast_scnn.FastSCNN(num_classes, aux=aux)
    heads = ("net.classifier.", "net.aux.")
    return Segmenter(
        net, name=name, num_classes=num_classes, stride=fast_scnn.STRIDE, head_prefixes=heads
    )


def _fast_scnn_aux(name: str, num_classes: int) -> Segmenter:
    return _fast_scnn(name, num_classes, aux=True)


def _bisenetv2(name: str, num_classes: int) -> Segmenter:
    net = bisenetv2.BiSeNetV2(num_classes)
    heads = ("net.head.", "net.aux.")
    return Segmenter(
        net, name=name, num_classes=num_classes, stride=bisenetv2.STRIDE, head_prefixes=heads
    )


MODELS: dict[str, Callable[[str, int], Segmenter]] = {
    "bisenetv2": _bisenetv2,
    "fast_scnn": _fast_scnn,
    "fast_scnn_aux": _fast_scnn_aux,
}
"""Networks of this package; in addition there are `zoo:<arch>/<encoder>` and
`zoo:torchvision/<name>`."""


def build_model(
    name: str, num_classes: int, *, pretrained: str = "", seed: int = 0, norm_groups: int = 0
) -> Segmenter:
    """Build a network by name; the same arguments give the same weights, bit by bit.

    Args:
        name: a key of MODELS, `zoo:<arch>/<encoder>` or `zoo:torchvision/<name>`.
        num_classes: number of output channels.
        pretrained: "" for random weights, "imagenet" for the encoder's ImageNet weights.
        seed: seed of the random weights; torch's own generators are not touched.
        norm_groups: most groups of the group norms that replace batch norms; 0 = no replacement.

    Raises:
        ConfigError: unknown name, or no such weights for this network.
        MissingExtra: the network or its weights need a package that is not installed.
    """
    with rng.torch_default(seed, purpose="model"):
        if name.startswith(PREFIX):
            segmenter = build_zoo(name, num_classes)
        elif name in MODELS:
            segmenter = MODELS[name](name, num_classes)
        else:
            choices = [*MODELS, f"{PREFIX}<arch>/<encoder>", f"{PREFIX}torchvision/<name>"]
            raise unknown_name("model", name, choices)
    if pretrained:
        load_imagenet(segmenter, pretrained)
    if norm_groups:
        use_group_norms(segmenter, norm_groups)
    return segmenter


NORMALISATIONS: dict[str, tuple[Sequence[float], Sequence[float]]] = {
    "half": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    # As in the BiSeNet code that FedSeg builds on, and optionally in FedDrive.
    "cityscapes": ((0.3257, 0.3690, 0.3223), (0.2112, 0.2148, 0.2115)),
}
"""Means and standard deviations of RGB in [0, 1] that `model.normalisation` names."""


def normalise_inputs(segmenter: Segmenter, settings: ModelConfig) -> None:
    """Give a network the input normalisation of an experiment, if it names one."""
    if settings.normalisation:
        segmenter.normalise_by(NORMALISATIONS[settings.normalisation])


def is_known(name: str) -> bool:
    """Return whether `build_model` knows this name (as far as can be told without building)."""
    return name in MODELS or name.startswith(PREFIX)


def _require_network(net: nn.Module) -> None:
    if not isinstance(net, nn.Module):
        is_class = isinstance(net, type) and issubclass(net, nn.Module)
        raise ModelError(
            "not a network",
            got=f"the class {net.__name__}" if is_class else type(net).__name__,
            expected="a torch.nn.Module",
            cure=f"Pass an instance: {net.__name__}(...)" if is_class else None,
        )
    if isinstance(net, torch.jit.ScriptModule):
        raise ModelError(
            "a TorchScript network, whose layers cannot be inspected",
            got=type(net).__name__,
            cure="Pass the network that it was compiled from",
        )


def wrap(
    net: nn.Module,
    num_classes: int,
    *,
    name: str = "custom",
    mean: Sequence[float] = IMAGENET_MEAN,
    std: Sequence[float] = IMAGENET_STD,
    stride: int | None = None,
    head_prefixes: Sequence[str] | None = None,
) -> Segmenter:
    """Wrap a user's network (N, 3, H, W) -> (N, num_classes, H, W); its weights are unchanged.

    Args:
        net: may also return (logits, *auxiliary logits), or torchvision's mapping. Its plain
            BatchNorm2d and depthwise Conv2d are converted to ours in place, as in networks of the
            zoo, so that training works with one image at a time and with bfloat16 on a CPU.
        num_classes: number of output channels.
        name: written into the saved model.
        mean: per RGB channel of images in [0, 1]; ImageNet's unless the network needs another.
        std: as `mean`.
        stride: images are padded to a multiple of it; None uses `encoder.output_stride`, the
            attribute of segmentation-models-pytorch, or 1 if there is none.
        head_prefixes: prefixes of the network's own state-dict keys with the head learning rate;
            None selects everything except its `encoder` or `backbone`, if it has one.

    Raises:
        ModelError: not a network.
    """
    _require_network(net)
    return wrapped(
        net,
        num_classes,
        name=name,
        mean=mean,
        std=std,
        stride=stride,
        head_prefixes=head_prefixes,
    )
