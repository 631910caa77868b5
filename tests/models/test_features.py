"""Features before the classifier: of every network those that its main logits are made of."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from fleetseg.errors import ModelError
from fleetseg.models.build import build_model, wrap
from fleetseg.models.features import classifier_of, watched
from fleetseg.models.segmenter import Segmenter

CLASSES = 7


def seen_by(model: Segmenter, images_NCHW: Tensor) -> tuple[Tensor, Tensor]:
    """Return features and main logits."""
    with watched(model) as seen, torch.no_grad():
        outputs = model(images_NCHW)
    (features_NDhw,) = seen
    return features_NDhw, outputs if isinstance(outputs, Tensor) else outputs[0]


@pytest.mark.parametrize("name", ["fast_scnn", "fast_scnn_aux", "bisenetv2"])
@pytest.mark.parametrize("size_hw", [(64, 96), (72, 80)])
@pytest.mark.parametrize("training", [True, False])
def test_logits_are_what_the_classifier_makes_of_them(
    name: str, size_hw: tuple[int, int], training: bool
) -> None:
    model = build_model(name, CLASSES).train(training)
    images_NCHW = torch.rand(2, 3, *size_hw, generator=torch.Generator().manual_seed(0))
    features_NDhw, logits_NChw = seen_by(model, images_NCHW)
    torch.testing.assert_close(classifier_of(model)(features_NDhw), logits_NChw)


@pytest.mark.parametrize(
    ("name", "package"),
    [
        ("zoo:fpn/mobilenet_v2", "segmentation_models_pytorch"),
        ("zoo:unet/mobilenet_v2", "segmentation_models_pytorch"),
        ("zoo:torchvision/deeplabv3_mobilenet_v3_large", "torchvision"),
    ],
)
def test_networks_of_other_packages_have_them_too(name: str, package: str) -> None:
    """Also where a convolution in the encoder has as many channels as there are classes."""
    pytest.importorskip(package)
    model = build_model(name, 16).eval()
    features_NDhw, logits_NChw = seen_by(model, torch.rand(1, 3, 64, 64))
    again_NChw = classifier_of(model)(features_NDhw)
    large_NCHW = nn.functional.interpolate(
        again_NChw, logits_NChw.shape[-2:], mode="bilinear", align_corners=False
    )
    torch.testing.assert_close(large_NCHW, logits_NChw)


def test_nothing_is_watched_afterwards() -> None:
    model = build_model("fast_scnn", CLASSES).eval()
    with watched(model) as seen:
        pass
    model(torch.rand(1, 3, 32, 32))
    assert seen == []


def test_a_network_without_a_last_convolution_is_named() -> None:
    model = wrap(nn.Sequential(nn.Conv2d(3, 4, 1), nn.AvgPool2d(2)), 4)
    assert classifier_of(model).out_channels == 4
    other = Segmenter(nn.AvgPool2d(2), name="pool", num_classes=3)
    with pytest.raises(ModelError, match="'pool' has no convolution that gives its logits"):
        classifier_of(other)
