"""Group norms in place of batch norms: in all networks, and saved and loaded with them."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.experiments import tiny_experiment
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

import fleetseg
from fleetseg.data.labels import LABEL_SPACES
from fleetseg.errors import ModelError
from fleetseg.federation.tensors import layout_of
from fleetseg.models.build import MODELS, build_model, wrap
from fleetseg.models.folder import load_model, save_model
from fleetseg.models.group_norm import group_count, use_group_norms
from fleetseg.rng import torch_generator

SPACE = LABEL_SPACES["camvid11"]
ZOO = ["zoo:fpn/resnet18", "zoo:torchvision/lraspp_mobilenet_v3_large"]


@pytest.mark.parametrize("name", [*MODELS, *ZOO])
def test_every_batch_norm_of_every_network_becomes_one(name: str) -> None:
    if name.startswith("zoo:"):
        pytest.importorskip("segmentation_models_pytorch")
    plain, grouped = build_model(name, 11), build_model(name, 11, norm_groups=16)
    norms = {n: m for n, m in plain.named_modules() if isinstance(m, _BatchNorm)}
    assert norms
    assert not any(isinstance(module, _BatchNorm) for module in grouped.modules())
    for key, norm in norms.items():
        made = grouped.get_submodule(key)
        assert isinstance(made, nn.GroupNorm)
        assert (made.num_channels, made.eps) == (norm.num_features, norm.eps)
        assert 1 <= made.num_groups <= 16
    shared = plain.state_dict().keys() & grouped.state_dict().keys()
    assert shared == grouped.state_dict().keys()
    assert all(torch.equal(plain.state_dict()[k], grouped.state_dict()[k]) for k in shared)
    assert {e.kind for e in layout_of(grouped).floats} == {"trainable"}
    images = torch.rand(1, 3, 64, 96, generator=torch_generator(0, 0, "", "images"))
    losses = [sum(out.square().mean() for out in net.train()(images)) for net in (grouped,)]
    losses[0].backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in grouped.parameters())


def test_affine_weights_are_carried_over_and_values_are_numpy_s() -> None:
    net = wrap(nn.Sequential(nn.Conv2d(3, 8, 1), nn.BatchNorm2d(8, eps=1e-3)), 8)
    with torch.no_grad():
        net.net[1].weight.copy_(torch.arange(1.0, 9.0))
        net.net[1].bias.copy_(torch.arange(8.0))
    held = net.net[1].weight
    use_group_norms(net, 2)
    assert net.net[1].weight is held
    x = torch.rand(2, 8, 3, 3, generator=torch_generator(0, 0, "", "x"))
    grouped = x.numpy().astype(np.float64).reshape(2, 2, -1)
    mean, var = grouped.mean(2, keepdims=True), grouped.var(2, keepdims=True)
    normal = ((grouped - mean) / np.sqrt(var + 1e-3)).reshape(2, 8, 3, 3)
    wanted = normal * np.arange(1.0, 9.0).reshape(8, 1, 1) + np.arange(8.0).reshape(8, 1, 1)
    np.testing.assert_allclose(net.net[1](x).detach().numpy(), wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 7, 8, 10, 24, 32, 48, 100, 128])
@pytest.mark.parametrize("most", [1, 2, 32])
def test_the_count_divides_and_leaves_more_than_one_channel(channels: int, most: int) -> None:
    count = group_count(channels, most)
    assert channels % count == 0
    assert count <= most
    assert channels // count >= min(4, channels)


def test_a_feature_of_one_pixel_is_not_erased() -> None:
    """One channel less its own mean would be 0, whatever the image."""
    net = wrap(nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.BatchNorm2d(3), nn.Conv2d(3, 2, 1)), 2)
    use_group_norms(net, 32)
    images = torch.rand(2, 3, 8, 8, generator=torch_generator(0, 0, "", "images"))
    first, second = net.eval()(images)
    assert not torch.equal(first, second)


def test_a_layer_in_two_places_stays_one() -> None:
    norm = nn.BatchNorm2d(3)
    net = wrap(nn.ModuleDict({"a": nn.Sequential(norm), "b": norm}), 3)
    use_group_norms(net, 1)
    assert isinstance(net.net["b"], nn.GroupNorm)
    assert net.net["a"][0] is net.net["b"]


def test_more_than_a_batch_norm_is_refused() -> None:
    class WithActivation(nn.BatchNorm2d):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x).relu()

    with pytest.raises(ModelError, match="a WithActivation does more than a batch norm"):
        use_group_norms(wrap(nn.Sequential(WithActivation(3)), 3), 1)


def test_a_saved_model_comes_back_with_them(tmp_path: Path) -> None:
    net = build_model("fast_scnn", 11, norm_groups=8).eval()
    save_model(net, tmp_path, space=SPACE, size_hw=(64, 96), details={})
    images = torch.rand(1, 3, 64, 96, generator=torch_generator(0, 0, "", "images"))
    with torch.no_grad():
        assert torch.equal(load_model(tmp_path)(images), net(images))
    assert load_model(tmp_path).norm_groups == 8


def test_so_does_a_user_s_own_network(tmp_path: Path) -> None:
    own = nn.Sequential(nn.Conv2d(3, 8, 1), nn.BatchNorm2d(8), nn.Conv2d(8, 11, 1))
    net = wrap(copy.deepcopy(own), 11)
    use_group_norms(net, 8)
    save_model(net, tmp_path, space=SPACE, size_hw=(8, 8), details={})
    images = torch.rand(1, 3, 8, 8, generator=torch_generator(0, 0, "", "images"))
    again = load_model(tmp_path, own)
    with torch.no_grad():
        assert torch.equal(again(images), net.eval()(images))


def tiny(cache: Path, **sections: dict[str, object]) -> fleetseg.Experiment:
    model = {"name": "fast_scnn", "norm": "group", "norm_groups": 8}
    return tiny_experiment(
        cache,
        **{"model": model, "federation": {"rounds": 1}, "evaluation": {"every": 0}, **sections},
    )


def test_a_run_has_them_from_start_to_end_and_another_goes_on_from_it(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    run = fleetseg.run(tiny(cache), out=tmp_path / "run")
    assert run.scores is not None
    assert not any(isinstance(module, _BatchNorm) for module in run.model().modules())
    workers = tiny(cache, engine={"kind": "workers", "workers": 2})
    assert fleetseg.run(workers, out=tmp_path / "workers").model_sha256 == run.model_sha256
    start = {"name": "fast_scnn", "start": str(run.folder / "model")}
    further = tiny(cache, model={**start, "norm": "group", "norm_groups": 8})
    assert fleetseg.run(further, out=tmp_path / "further").model_sha256 != run.model_sha256
    for other in ({}, {"norm": "group", "norm_groups": 4}):
        with pytest.raises(ModelError, match="the start model has other norm layers"):
            fleetseg.run(tiny(cache, model={**start, **other}), out=tmp_path / "other")
    silobn = tiny(cache, federation={"sharing": "silobn"}, evaluation={"norms": "domain"})
    with pytest.raises(ModelError, match="nothing of this network stays"):
        fleetseg.run(silobn, out=tmp_path / "silobn")
