"""Networks of other packages: trained for a step, their randomness and weights ours."""

from __future__ import annotations

import sys

import pytest
import torch

from fleetseg.errors import ConfigError, MissingExtra
from fleetseg.models.build import build_model


def _images(*shape: int) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    "name",
    [
        "zoo:fpn/timm-tf_efficientnet_lite0",
        "zoo:unet/mobilenet_v2",
        "zoo:deeplabv3plus/mobilenet_v2",
        "zoo:pspnet/mobilenet_v2",
        "zoo:segformer/mit_b0",
    ],
)
def test_smp_networks_train_on_one_image_of_any_size(name: str) -> None:
    pytest.importorskip("segmentation_models_pytorch")
    model = build_model(name, 5)
    (logits,) = model.train()(_images(1, 3, 60, 90))
    assert logits.shape[:2] == (1, 5)
    logits.square().mean().backward()
    assert model.eval()(_images(2, 3, 64, 96)).shape[:2] == (2, 5)
    assert {p.split(".")[1] for p in model.head_prefixes} == {"decoder", "segmentation_head"}


def test_lite0_fpn_has_no_dead_weights_and_the_norms_it_was_trained_with() -> None:
    pytest.importorskip("segmentation_models_pytorch")
    model = build_model("zoo:fpn/timm-tf_efficientnet_lite0", 11)
    assert sum(p.numel() for p in model.parameters()) == 3_429_963
    (logits,) = model.train()(_images(2, 3, 64, 64))
    assert logits.shape == (2, 11, 16, 16)
    logits.square().mean().backward()
    assert [n for n, p in model.named_parameters() if p.grad is None] == []
    norms = [m for m in model.net.encoder.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert {norm.eps for norm in norms} == {1e-3}


def test_random_depth_is_off_so_that_training_draws_only_dropout() -> None:
    pytest.importorskip("segmentation_models_pytorch")
    encoder = build_model("zoo:fpn/timm-tf_efficientnet_lite0", 11).net.encoder.train()
    x = _images(2, 3, 64, 64)
    assert torch.equal(encoder(x)[-1], encoder(x)[-1])


@pytest.mark.parametrize("name", ["lraspp_mobilenet_v3_large", "deeplabv3_mobilenet_v3_large"])
def test_torchvision_mappings_are_unwrapped(name: str) -> None:
    pytest.importorskip("torchvision")
    model = build_model(f"zoo:torchvision/{name}", 5)
    (logits,) = model.train()(_images(1, 3, 40, 56))
    assert logits.shape == (1, 5, 40, 56)
    assert model.head_prefixes == ("net.classifier.",)


def test_wrong_names_are_explained() -> None:
    pytest.importorskip("segmentation_models_pytorch")
    for name, text in {
        "zoo:fpm/resnet18": "unknown architecture 'fpm'.*Did you mean 'fpn'",
        "zoo:fpn/resnet19": "unknown encoder 'resnet19'.*Did you mean 'resnet1.'",
        "zoo:fpn/tu-nothing": "cannot be built with encoder 'tu-nothing'",
        "zoo:dpt/resnet18": "architecture 'dpt' cannot be built with encoder 'resnet18'",
        "zoo:torchvision/fcn": "unknown torchvision segmentation network 'fcn'",
        "zoo:fpn": "the name of a zoo model has two parts; got 'zoo:fpn'",
        "zoo:/resnet18": "the name of a zoo model has two parts",
    }.items():
        with pytest.raises(ConfigError, match=text):
            build_model(name, 5)


def test_a_missing_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "segmentation_models_pytorch", None)
    monkeypatch.setitem(sys.modules, "torchvision", None)
    for name in ("zoo:fpn/resnet18", "zoo:torchvision/fcn_resnet50"):
        with pytest.raises(MissingExtra, match=r"fleetseg\[zoo\]"):
            build_model(name, 5)
