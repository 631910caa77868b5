"""Which tensors clusters have of their own, by what modules are, and how they are sent."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from fleetseg.config import FederationConfig
from fleetseg.errors import ConfigError, ModelError
from fleetseg.federation.cluster_parts import with_clusters
from fleetseg.federation.sharing import Exchange
from fleetseg.federation.tensors import layout_of
from fleetseg.models.build import build_model


class Net(nn.Module):
    """A batch norm that is called otherwise, in what is the encoder, and a head."""

    head_prefixes = ("head",)

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.ModuleDict({"conv": nn.Conv2d(3, 2, 1), "foo": nn.BatchNorm2d(2)})
        self.neck = nn.Conv2d(2, 2, 1)
        self.head = nn.Conv2d(2, 3, 1)


NORM = ["weight", "bias", "running_mean", "running_var", "num_batches_tracked"]
ENCODER = ["encoder.conv.weight", "encoder.conv.bias", *(f"encoder.foo.{name}" for name in NORM)]
HEAD = ["head.weight", "head.bias"]


def federation(**changes: Any) -> FederationConfig:
    chosen = {"clustered_by": "class mix", "cluster_models": changes}
    return FederationConfig.model_validate(chosen)


def exchange(sharing: str = "all", **changes: Any) -> Exchange:
    settings = federation(**changes)
    return with_clusters(Exchange.of(layout_of(Net()), FederationConfig(sharing=sharing)), settings)


@pytest.mark.parametrize(
    ("tensors", "own"),
    [
        ("norms", [f"encoder.foo.{name}" for name in NORM]),
        ("encoder", ENCODER),
        ("decoder", ["neck.weight", "neck.bias", *HEAD]),
        ("head", HEAD),
        ("all", [*ENCODER, "neck.weight", "neck.bias", *HEAD]),
    ],
)
def test_by_what_modules_are(tensors: str, own: list[str]) -> None:
    divided = exchange(tensors=tensors)
    assert sorted(divided.clustered.by_key) == sorted(own)
    whole = divided.wire.by_key.keys()
    assert divided.common.by_key.keys() == whole - divided.clustered.by_key.keys()


def test_by_the_names_of_modules() -> None:
    assert [*exchange(tensors="stages", stages=["neck"]).clustered.by_key] == [
        "neck.weight", "neck.bias",
    ]  # fmt: skip
    with pytest.raises(
        ConfigError, match=r"cluster_models\.stages: the network has no stage 'nek'"
    ):
        exchange(tensors="stages", stages=["nek"])


@pytest.mark.parametrize("name", ["fast_scnn", "bisenetv2"])
def test_our_networks_say_what_their_encoder_is(name: str) -> None:
    whole = Exchange.of(layout_of(build_model(name, 3)))
    encoder = with_clusters(whole, federation(tensors="encoder")).clustered
    decoder = with_clusters(whole, federation(tensors="decoder")).clustered
    assert 0 < encoder.num_trainable < whole.model.num_trainable
    assert encoder.num_floats + decoder.num_floats == whole.model.num_floats
    assert not any(entry.in_head for entry in encoder.floats)


def test_only_of_what_is_exchanged() -> None:
    assert [*exchange("body", tensors="decoder").clustered.by_key] == ["neck.weight", "neck.bias"]
    with pytest.raises(ModelError, match="clusters would have none of"):
        exchange("body", tensors="head")
    silobn = exchange("silobn", tensors="norms").clustered
    assert [*silobn.by_key] == ["encoder.foo.weight", "encoder.foo.bias"]


def test_a_network_without_an_encoder_says_so() -> None:
    whole = Exchange.of(layout_of(nn.Sequential(nn.Conv2d(3, 2, 1), nn.Conv2d(2, 2, 1))))
    for tensors in ("encoder", "decoder", "head", "norms"):
        with pytest.raises(ModelError, match=r"cluster_models\.stages|tensors = 'stages'"):
            with_clusters(whole, federation(tensors=tensors))


def test_without_clusters_nothing_is_divided() -> None:
    whole = Exchange.of(layout_of(Net()))
    assert with_clusters(whole, FederationConfig()) is whole
    assert whole.common is whole.wire is whole.down
    assert not whole.is_clustered


def test_what_vehicles_choose_from_comes_behind_a_model() -> None:
    """Two more of what is the clusters' own, counters included, and no more than that."""
    settings = federation(tensors="norms", count=3).model_copy(update={"clustered_by": "loss"})
    divided = with_clusters(Exchange.of(layout_of(Net())), settings)
    own = divided.clustered
    assert divided.down.num_floats == divided.wire.num_floats + 2 * own.num_floats
    assert divided.down.num_counters == 1 + 2
    assert divided.down.num_trainable == divided.wire.num_trainable
    assert divided.up.digest == divided.wire.digest != divided.down.digest
    assert divided.sent_by("train") is divided.down
    assert divided.sent_by("evaluate") is divided.wire
    one = with_clusters(
        Exchange.of(layout_of(Net())),
        settings.model_copy(update={"cluster_models": federation(count=1).cluster_models}),
    )
    assert one.down is one.wire
    assert torch.equal(own.variances_V, torch.arange(6, 8))
