"""Networks by name: the same weights for the same seed."""

from __future__ import annotations

from typing import get_args

import pytest
import torch
from torch import nn

from fleetseg.config import ModelConfig
from fleetseg.errors import ConfigError
from fleetseg.models.build import (
    MODELS,
    NORMALISATIONS,
    build_model,
    is_known,
    normalise_inputs,
    wrap,
)


@pytest.mark.parametrize("name", sorted(MODELS))
def test_same_seed_same_weights_and_the_callers_stream_is_untouched(name: str) -> None:
    before = torch.get_rng_state()
    first, again, other = (build_model(name, 4, seed=seed).state_dict() for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert any(not torch.equal(first[key], other[key]) for key in first)


@pytest.mark.parametrize("name", sorted(MODELS))
def test_every_network_takes_odd_sizes_and_names_its_heads(name: str) -> None:
    model = build_model(name, 4)
    images = torch.rand(2, 3, 50, 70, generator=torch.Generator().manual_seed(0))
    outputs = model.train()(images)
    assert all(logits.shape[:2] == (2, 4) for logits in outputs)
    assert model.eval()(images).shape == (2, 4, 50, 70)
    heads = [k for k in model.state_dict() if k.startswith(model.head_prefixes)]
    assert 0 < len(heads) < len(model.state_dict())
    assert any(model.state_dict()[k].shape[:1] == (4,) for k in heads)  # the class layer is in


def test_unknown_name_is_an_error_with_the_nearest_match() -> None:
    with pytest.raises(ConfigError, match=r"unknown model 'fast_scn'.*Did you mean 'fast_scnn'"):
        build_model("fast_scn", 4)
    assert is_known("fast_scnn")
    assert is_known("zoo:unet/resnet18")
    assert not is_known("custom")


def test_pretrained_is_refused_where_there_are_no_weights() -> None:
    with pytest.raises(ConfigError, match=r"no pretrained weights for model 'fast_scnn'.*zoo:fpn/"):
        build_model("fast_scnn", 4, pretrained="imagenet")
    with pytest.raises(ConfigError, match="unknown pretrained weights 'imagnet'"):
        build_model("fast_scnn", 4, pretrained="imagnet")


def test_wrap_keeps_the_users_network_and_prefixes_its_heads() -> None:
    net = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 4, 1))
    model = wrap(net, 4, head_prefixes=("2.",), mean=(0, 0, 0), std=(1, 1, 1))
    x = torch.ones(1, 3, 5, 7)
    assert model.net is net
    assert torch.equal(model.eval()(x), net(x))
    assert [k for k in model.state_dict() if k.startswith(model.head_prefixes)] == [
        "net.2.weight",
        "net.2.bias",
    ]


def test_wrap_asks_an_encoder_for_its_stride() -> None:
    net = nn.Conv2d(3, 4, 1)
    assert wrap(net, 4).stride == 1
    net.encoder = nn.Identity()
    net.encoder.output_stride = 16
    assert wrap(net, 4).stride == 16
    assert wrap(net, 4, stride=2).stride == 2


def test_normalisation_of_inputs_by_hand() -> None:
    images = torch.tensor([0.0, 0.25, 1.0]).view(1, 3, 1, 1)
    model = wrap(nn.Identity(), 3).eval()
    usual = model(images)
    normalise_inputs(model, ModelConfig())
    assert torch.equal(model(images), usual)
    normalise_inputs(model, ModelConfig(normalisation="half"))
    assert model(images).flatten().tolist() == [-1.0, -0.5, 1.0]
    normalise_inputs(model, ModelConfig(normalisation="cityscapes"))
    expected = [-0.3257 / 0.2112, (0.25 - 0.3690) / 0.2148, (1 - 0.3223) / 0.2115]
    assert model(images).flatten().tolist() == pytest.approx(expected)


def test_every_normalisation_that_an_experiment_may_name_is_known() -> None:
    named = get_args(ModelConfig.model_fields["normalisation"].annotation)
    assert set(named) == {"", *NORMALISATIONS}
