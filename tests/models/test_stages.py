"""Stages of an encoder: found in every network by how features shrink, and changed in training."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from fleetseg import rng
from fleetseg.errors import ModelError
from fleetseg.models.build import build_model, wrap
from fleetseg.models.segmenter import Segmenter
from fleetseg.models.stages import Place, changed_features, find_stages, require_stages

SIZE_HW = (64, 96)


def returned(*modules: str) -> tuple[Place, ...]:
    return tuple(Place(f"net.{module}", True) for module in modules)


@pytest.mark.parametrize(
    ("name", "package", "at_4", "at_8"),
    [
        ("fast_scnn", "", ("downsample.1",), ("downsample",)),
        ("bisenetv2", "", ("semantic.0", "detail.4"), ("semantic.1", "detail")),
        ("zoo:fpn/timm-tf_efficientnet_lite0", "segmentation_models_pytorch",
         ("encoder.blocks.1",), ("encoder.blocks.2",)),
        ("zoo:unet/resnet18", "segmentation_models_pytorch",
         ("encoder.layer1",), ("encoder.layer2",)),
        ("zoo:deeplabv3plus/mobilenet_v2", "segmentation_models_pytorch",
         ("encoder.features.3",), ("encoder.features.6",)),
        ("zoo:torchvision/lraspp_mobilenet_v3_large", "torchvision",
         ("backbone.3",), ("backbone.6",)),
    ],
)  # fmt: skip
def test_the_stages_of_each_network(
    name: str, package: str, at_4: tuple[str, ...], at_8: tuple[str, ...]
) -> None:
    if package:
        pytest.importorskip(package)
    model = build_model(name, 5).train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    stages = find_stages(model, SIZE_HW)
    assert stages[4] == returned(*at_4)
    assert stages[8] == returned(*at_8)
    assert model.training
    assert list(model.state_dict()) == list(before)
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())


def test_a_transformer_s_are_what_its_next_patches_are_made_of() -> None:
    """No module returns them: they are tokens in between."""
    pytest.importorskip("segmentation_models_pytorch")
    stages = find_stages(build_model("zoo:segformer/mit_b0", 5), SIZE_HW)
    assert stages[4] == (Place("net.encoder.patch_embed2", False),)
    assert stages[8] == (Place("net.encoder.patch_embed3", False),)


def down(channels: int, made: int) -> nn.Conv2d:
    return nn.Conv2d(channels, made, 3, stride=2, padding=1)


class Skips(nn.Module):
    """Uses the features of its first stage twice; one activation is called at both places."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.act = down(3, 4), down(4, 4), nn.ReLU()
        self.pool, self.head = nn.AdaptiveAvgPool2d(1), nn.Conv2d(8, 5, 1)

    def forward(self, x: Tensor) -> Tensor:
        shallow = self.act(self.first(x))
        deep = self.act(self.second(shallow))
        deep = nn.functional.interpolate(deep + self.pool(deep), shallow.shape[2:])
        made: Tensor = self.head(torch.cat([shallow, deep], 1))
        return made


def skips() -> Segmenter:
    with rng.torch_default(0, purpose="stages-test"):
        return wrap(Skips(), 5)


def test_what_is_called_twice_is_no_place_and_global_pooling_no_stage() -> None:
    assert find_stages(skips(), (16, 16)) == {2: (Place("net.second", False),)}


def test_a_network_that_does_not_shrink_features_is_refused() -> None:
    flat = wrap(nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 5, 1)), 5)
    assert find_stages(flat, (16, 16)) == {}
    with pytest.raises(ModelError, match=r"no features of stride 4.*got strides none"):
        require_stages(flat, (16, 16), (4, 8))


def test_a_stage_that_is_missing_is_named_with_those_that_are_there() -> None:
    model = build_model("fast_scnn", 5)
    with pytest.raises(ModelError, match=r"no features of stride 32.*got strides 2, 4, 8, 16"):
        require_stages(model, SIZE_HW, (4, 32))
    assert [place.module for place in require_stages(model, SIZE_HW, (8, 4))] == [
        "net.downsample.1", "net.downsample",
    ]  # fmt: skip


def test_features_are_changed_in_training_only_and_for_all_that_use_them() -> None:
    model = build_model("fast_scnn", 5)
    images_NCHW = torch.rand(2, 3, *SIZE_HW, generator=rng.torch_generator(0))
    places = require_stages(model, SIZE_HW, (8,))
    seen: list[Tensor] = []
    users = [model.get_submodule(f"net.{name}") for name in ("features", "fusion")]
    handles = [user.register_forward_pre_hook(lambda _, a: seen.append(a[0])) for user in users]
    with changed_features(model, places, lambda number, x: torch.full_like(x, 7.0 + number)):
        copied = copy.deepcopy(model).train()
        model.train()(images_NCHW)
        assert [bool((x == 7).all()) for x in seen] == [True, True]
        seen.clear()
        model.eval()(images_NCHW)
        copied(images_NCHW)  # a teacher made of the student has its hooks, and is left alone
        assert [bool((x == 7).all()) for x in seen] == [False] * 4
    seen.clear()
    model.train()(images_NCHW)
    assert not any(bool((x == 7).all()) for x in seen)
    for handle in handles:
        handle.remove()
