"""Adapters: the network is the same at first, the mean is that of the weights, the rest stands."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.experiments import tiny_experiment
from torch import nn

import fleetseg
from fleetseg import rng
from fleetseg.config import FederationConfig
from fleetseg.errors import ModelError
from fleetseg.experiment_file import make_experiment
from fleetseg.federation.records import RoundRecord
from fleetseg.federation.rounds import Watcher
from fleetseg.federation.sharing import Exchange
from fleetseg.federation.tensors import layout_of
from fleetseg.learning.adapters import AdaptedConv2d, add_adapters, merge_adapters
from fleetseg.learning.hardware import Hardware
from fleetseg.learning.inputs import LocalInputs, RoundContext
from fleetseg.learning.local import train_locally
from fleetseg.models.build import build_model, wrap
from fleetseg.models.segmenter import Segmenter


def net(classes: int = 3) -> Segmenter:
    with rng.torch_default(0, purpose="adapters-test"):
        layers = nn.Sequential(
            nn.Conv2d(3, 6, 3, stride=2, padding=1), nn.BatchNorm2d(6), nn.ReLU(),
            nn.Conv2d(6, 6, 3, padding=2, dilation=2, groups=6), nn.Conv2d(6, 6, 1, bias=False),
            nn.BatchNorm2d(6), nn.Conv2d(6, classes, 1),
        )  # fmt: skip
    return wrap(layers, classes, head_prefixes=["6."])


def train(model: nn.Module, seed: int = 0) -> None:
    draw = np.random.Generator(np.random.Philox(seed))
    pairs = [
        (
            draw.integers(0, 256, (16, 16, 3), dtype=np.uint8),
            draw.integers(0, 3, (16, 16), dtype=np.uint8),
        )
        for _ in range(4)
    ]
    training = make_experiment(
        {"training": {"batch_size": 2, "lr": 0.1, "local_steps": 5}}
    ).training
    cpu = Hardware(torch.device("cpu"), "fp32")
    train_locally(model, pairs, LocalInputs(RoundContext(0, 1, 9, "car"), training, (16, 16), cpu))


IMAGES = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(3))


def test_at_first_the_network_computes_what_it_did() -> None:
    plain, adapted = net().eval(), net().eval()
    add_adapters(adapted, 2, seed=0)
    assert torch.equal(plain(IMAGES), adapted(IMAGES))


def test_the_change_is_the_product_by_hand() -> None:
    model = wrap(nn.Sequential(nn.Conv2d(1, 2, 1, bias=False), nn.Conv2d(2, 2, 1)), 2,
                 head_prefixes=["1."])  # fmt: skip
    add_adapters(model, 1, seed=0)
    conv = model.get_submodule("net.0")
    assert isinstance(conv, AdaptedConv2d)
    with torch.no_grad():
        conv.weight.copy_(torch.tensor([10.0, 20.0]).view(2, 1, 1, 1))
        conv.down.copy_(torch.tensor(3.0).view(1, 1, 1, 1))
        conv.up.copy_(torch.tensor([[0.5], [-1.0]]))
    assert conv.merged().flatten().tolist() == [11.5, 17.0]
    assert conv(torch.ones(1, 1, 1, 1)).flatten().tolist() == [11.5, 17.0]


def test_only_adapters_norms_and_heads_learn_and_only_they_are_sent() -> None:
    model = net()
    add_adapters(model, 2, seed=0)
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    train(model)
    moved = {k for k, tensor in model.state_dict().items() if not torch.equal(tensor, before[k])}
    exchange = Exchange.of(layout_of(model), FederationConfig(sharing="trained"))
    assert set(exchange.wire.by_key) == moved
    assert set(exchange.kept.by_key) == {
        "net.0.weight", "net.0.bias", "net.0.down", "net.3.weight", "net.3.bias", "net.4.weight",
        "net.4.down",
    }  # fmt: skip
    assert not exchange.learns_apart(make_experiment({}).training)


def test_the_mean_of_what_is_sent_is_the_mean_of_the_weights() -> None:
    """Of adapters that learn both factors, it is not: mean(B) mean(A) is not mean(B A)."""
    clients = [net() for _ in range(3)]
    for seed, model in enumerate(clients):
        add_adapters(model, 2, seed=0)
        train(model, seed)
    convs = [model.get_submodule("net.0") for model in clients]
    wanted = torch.stack([conv.merged() for conv in convs]).mean(0)  # type: ignore[operator]
    with torch.no_grad():
        mean = torch.stack([conv.up for conv in convs]).mean(0)  # type: ignore[arg-type]
        convs[0].up.copy_(mean)  # type: ignore[operator]
    assert torch.allclose(convs[0].merged(), wanted, atol=1e-6)  # type: ignore[operator]
    assert not torch.allclose(wanted, net().state_dict()["net.0.weight"], atol=1e-4)


def test_merged_it_is_a_plain_network_that_computes_the_same_bits() -> None:
    model = net()
    add_adapters(model, 2, seed=0)
    train(model)
    adapted = model.eval()(IMAGES)
    merge_adapters(model)
    assert model.state_dict().keys() == net().state_dict().keys()
    assert {type(m) for m in model.modules()} == {type(m) for m in net().modules()}
    assert torch.equal(model(IMAGES), adapted)


def test_the_seed_decides_what_stands() -> None:
    downs = []
    for seed in (0, 0, 1):
        model = net()
        add_adapters(model, 2, seed)
        downs.append(model.get_parameter("net.4.down"))
    assert torch.equal(downs[0], downs[1])
    assert not torch.equal(downs[0], downs[2])


def test_what_cannot_be_adapted_is_refused() -> None:
    with pytest.raises(ModelError, match="does not define its head"):
        add_adapters(wrap(nn.Sequential(nn.Conv2d(3, 3, 1)), 3), 1, 0)
    only_norms = nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 3, 1))
    with pytest.raises(ModelError, match="no convolution"):
        add_adapters(wrap(only_norms, 3, head_prefixes=["1."]), 1, 0)


def test_bytes_are_those_of_what_is_trained() -> None:
    sizes = {}
    for rank in (0, 2):
        model = build_model("bisenetv2", 11)
        if rank:
            add_adapters(model, rank, 0)
        sharing = "trained" if rank else "all"
        exchange = Exchange.of(layout_of(model), FederationConfig(sharing=sharing))
        sizes[rank] = exchange.wire.num_floats
    body = (e for e in layout_of(build_model("bisenetv2", 11)).floats if not e.in_head)
    frozen = sum(e.size for e in body if not e.in_norm)
    assert sizes[2] < sizes[0] - frozen * 0.9


def run(folder: Path, kind: str = "inprocess", **given: Any) -> fleetseg.Run:
    described = tiny_experiment(
        folder / "cache",
        model={"adapter_rank": 2},
        training={"lr": 0.1},
        federation={"rounds": 3, "cohort": 3, "sharing": "trained"},
        engine={"kind": kind, "workers": 2},
    )
    return fleetseg.run(described, net=net(11), **given)


def test_in_workers_and_after_a_crash_it_is_the_same_and_what_is_saved_is_what_was_scored(
    tmp_path: Path,
) -> None:
    def crash(record: RoundRecord) -> None:
        if record.round == 2:
            raise RuntimeError("power failure")

    whole = run(tmp_path, out=tmp_path / "whole")
    assert run(tmp_path, "workers", out=tmp_path / "workers").model_sha256 == whole.model_sha256
    with pytest.raises(RuntimeError, match="power failure"):
        run(tmp_path, out=tmp_path / "cut", watcher=Watcher(round_closed=crash))
    assert run(tmp_path, out=tmp_path / "cut", resume=True).model_sha256 == whole.model_sha256
    assert list((tmp_path / "whole" / "clients").rglob("*.safetensors")) == []
    again = fleetseg.evaluate(whole.model_with(net(11)), whole.experiment, precision="fp32")
    assert whole.scores is not None
    assert again.miou == whole.miou
