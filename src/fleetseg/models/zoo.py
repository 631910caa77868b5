"""Networks of other packages by their original names, without weights: nothing is downloaded.

`zoo:<arch>/<encoder>` is from segmentation-models-pytorch, e.g. `zoo:deeplabv3plus/mobilenet_v2`;
`zoo:torchvision/<name>` is from torchvision.models.segmentation, e.g.
`zoo:torchvision/lraspp_mobilenet_v3_large`.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

from torch import nn

from fleetseg.errors import ConfigError, MissingExtra, unknown_name
from fleetseg.models.segmenter import Segmenter
from fleetseg.models.wrapping import wrapped

PREFIX = "zoo:"

OPTIONS: Mapping[str, Mapping[str, Any]] = {
    # Half of smp's widths: with a small encoder, the decoder is most of the work. Omit the last
    # upsampling, since the caller interpolates to label size anyway.
    "fpn": {
        "decoder_pyramid_channels": 128,
        "decoder_segmentation_channels": 64,
        "decoder_dropout": 0.1,
        "upsampling": 1,
    },
    "deeplabv3plus": {"upsampling": 1},
    "dpt": {"dynamic_img_size": True},  # allows vision transformers at sizes other than ImageNet's
    "pan": {"upsampling": 1},
    "pspnet": {"upsampling": 1},
    "segformer": {"upsampling": 1},
    "upernet": {"upsampling": 1},
}
"""Our overrides of smp's defaults, by architecture."""


def build_zoo(name: str, num_classes: int) -> Segmenter:
    """Build `zoo:<arch>/<encoder>` or `zoo:torchvision/<name>` with random weights.

    Raises:
        ConfigError: the name has another form, or the architecture or encoder is unknown.
        MissingExtra: the package is not installed.
    """
    arch, _, encoder = name.removeprefix(PREFIX).partition("/")
    if not arch or not encoder:
        raise ConfigError(
            "the name of a zoo model has two parts",
            got=f"'{name}'",
            expected="zoo:<arch>/<encoder> or zoo:torchvision/<name>",
            cure="For example zoo:fpn/timm-tf_efficientnet_lite0",
        )
    if arch == "torchvision":
        net = _torchvision(encoder, num_classes)
    else:
        net = _smp(arch, encoder, num_classes)
    return wrapped(net, num_classes, name=name)


def _smp(arch: str, encoder: str, num_classes: int) -> nn.Module:
    try:
        import segmentation_models_pytorch as smp
        from segmentation_models_pytorch.encoders import encoders
    except ImportError:
        raise MissingExtra("segmentation-models-pytorch", "zoo", f"zoo:{arch}/{encoder}") from None
    if arch not in smp.MODEL_ARCHITECTURES_MAPPING:
        raise unknown_name("architecture", arch, [*smp.MODEL_ARCHITECTURES_MAPPING, "torchvision"])
    # "tu-<name>" is any of timm's networks; only timm knows the list.
    if encoder not in encoders and not encoder.startswith("tu-"):
        raise unknown_name("encoder", encoder, [*encoders, "tu-<timm name>"])
    options = OPTIONS.get(arch, {})
    try:
        with warnings.catch_warnings():
            # The user cannot act on this: the names stay valid as long as smp has them.
            warnings.filterwarnings("ignore", message="`timm-` encoders are deprecated")
            net: nn.Module = smp.create_model(
                arch, encoder_name=encoder, encoder_weights=None, classes=num_classes, **options
            )
    except (ValueError, RuntimeError, KeyError) as error:
        raise ConfigError(
            f"architecture '{arch}' cannot be built with encoder '{encoder}' ({error})",
            cure="Choose another encoder",
        ) from None
    if "tf_efficientnet_lite" in encoder and not encoder.startswith("tu-"):
        _trim_efficientnet_lite(net.encoder)  # type: ignore[arg-type]
    return net


def _trim_efficientnet_lite(encoder: nn.Module) -> None:
    """Turn smp's encoder into the network that its weights were trained in, without dead parts."""
    # The layers before the classifier are not used in segmentation: 0.41 M fewer values to send.
    del encoder.conv_head, encoder.bn2
    for module in encoder.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eps = 1e-3  # as in TensorFlow; smp's 1e-5 would change the pretrained features
        if type(module).__name__ == "DropPath":
            module.drop_prob = 0.0  # type: ignore[assignment]  # short trainings underfit


def _torchvision(name: str, num_classes: int) -> nn.Module:
    try:
        from torchvision import models
    except ImportError:
        raise MissingExtra("torchvision", "zoo", f"zoo:torchvision/{name}") from None
    names = models.list_models(module=models.segmentation)
    if name not in names:
        raise unknown_name("torchvision segmentation network", name, names)
    net: nn.Module = models.get_model(
        name, weights=None, weights_backbone=None, num_classes=num_classes
    )
    return net
