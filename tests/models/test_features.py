"""Features before the classifier: found in every network by its graph, and seen as they pass."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from fleetseg import rng
from fleetseg.errors import ModelError
from fleetseg.models.build import build_model, wrap
from fleetseg.models.features import find_classifier, watched_features
from fleetseg.models.segmenter import Segmenter

CLASSES = 5


def images(*shape: int) -> Tensor:
    return torch.rand(*shape, generator=rng.torch_generator(0))


@pytest.mark.parametrize(
    ("name", "package", "classifier"),
    [
        ("fast_scnn", "", "classifier.3"),
        ("fast_scnn_aux", "", "classifier.3"),
        ("bisenetv2", "", "head.2"),
        ("zoo:fpn/timm-tf_efficientnet_lite0", "segmentation_models_pytorch",
         "segmentation_head.0"),
        ("zoo:unet/mobilenet_v2", "segmentation_models_pytorch", "segmentation_head.0"),
        ("zoo:deeplabv3plus/mobilenet_v2", "segmentation_models_pytorch", "segmentation_head.0"),
        ("zoo:segformer/mit_b0", "segmentation_models_pytorch", "segmentation_head.0"),
        ("zoo:torchvision/lraspp_mobilenet_v3_large", "torchvision", "classifier.high_classifier"),
        ("zoo:torchvision/deeplabv3_mobilenet_v3_large", "torchvision", "classifier.4"),
    ],
)  # fmt: skip
def test_the_classifier_of_each_network(name: str, package: str, classifier: str) -> None:
    if package:
        pytest.importorskip(package)
    model = build_model(name, CLASSES).train()
    model.net.eval()  # modes that differ within are put back, too
    before = {key: value.clone() for key, value in model.state_dict().items()}
    found = find_classifier(model, (64, 96))
    assert found == f"net.{classifier}"
    assert (model.training, model.net.training) == (True, False)
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    with watched_features(model, found) as seen:
        model.train()(images(2, 3, 64, 96))
    (features_NDhw,) = seen
    module = model.get_submodule(found)
    assert isinstance(module, nn.Conv2d)
    assert features_NDhw.shape[:2] == (2, module.in_channels)
    assert features_NDhw.requires_grad


def test_nothing_is_watched_after_the_block() -> None:
    model = build_model("fast_scnn", CLASSES)
    found = find_classifier(model, (64, 64))
    with watched_features(model, found) as seen:
        pass
    model(images(1, 3, 64, 64))
    assert seen == []
    assert not any(module._forward_hooks for module in model.modules())


class TwoHeads(nn.Module):
    """The auxiliary head comes last, and is run in eval mode as well."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Conv2d(3, 7, 3, padding=1)
        self.early = nn.Conv2d(7, CLASSES, 1)  # as many channels as classes, on the way
        self.last = nn.Conv2d(CLASSES, CLASSES, 1)
        self.aux = nn.Conv2d(7, CLASSES, 1)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        y = self.body(x)
        return {"out": torch.relu_(self.last(self.early(y))), "aux": self.aux(y)}


def test_it_is_the_one_that_the_logits_are_made_by() -> None:
    assert find_classifier(wrap(TwoHeads(), CLASSES), (16, 16)) == "net.last"


def test_a_network_without_one_is_told() -> None:
    class Pooled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Conv2d(3, 2 * CLASSES, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.body(x).unflatten(1, (CLASSES, 2)).sum(2)

    with pytest.raises(ModelError, match=r"network 'custom' has no features.*5 channels"):
        find_classifier(wrap(Pooled(), CLASSES), (16, 16))


def test_what_a_network_sees_of_a_size() -> None:
    net = Segmenter(nn.Identity(), name="x", num_classes=3, stride=32)
    assert net.padded_hw((64, 65)) == (64, 96)
