"""A user's network gets the same protections as the others."""

from __future__ import annotations

import warnings
from collections.abc import Iterator

import pytest
import torch
from torch import nn

from fleetseg.errors import ModelError
from fleetseg.models.build import wrap
from fleetseg.models.layers import DepthwiseConv2d, SafeBatchNorm2d
from fleetseg.models.wrapping import copied_net, materialise


@pytest.fixture(autouse=True)
def _lazy_layers_warn() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Lazy modules are a new feature")
        yield


class Mobile(nn.Module):
    """A user's network with all that the zoo's are protected in."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Conv2d(3, 8, 3, stride=2, padding=1),
            nn.Conv2d(8, 8, 3, padding=1, groups=8),
            nn.BatchNorm2d(8),
        )
        self.encoder.output_stride = 2
        self.pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(8, 8, 1), nn.BatchNorm2d(8))
        self.head = nn.Conv2d(8, 2, 1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        features = self.encoder(images)
        logits: torch.Tensor = self.head(features * self.pool(features).sigmoid())
        return logits


def images(count: int = 1) -> torch.Tensor:
    return torch.rand(count, 3, 9, 11, generator=torch.Generator().manual_seed(0))


def test_a_users_network_gets_what_the_zoos_get() -> None:
    model = wrap(Mobile(), 2)
    assert {type(m) for m in model.modules()} >= {SafeBatchNorm2d, DepthwiseConv2d}
    assert nn.BatchNorm2d not in {type(m) for m in model.modules()}
    assert model.stride == 2
    assert model.head_prefixes == ("net.pool.", "net.head.")
    (logits,) = model.train()(images())  # one value per channel behind the pooling
    logits.square().mean().backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


def test_a_network_without_a_trunk_has_no_heads_unless_they_are_named() -> None:
    assert wrap(nn.Conv2d(3, 2, 1), 2).head_prefixes == ()
    assert wrap(Mobile(), 2, head_prefixes=("head.",)).head_prefixes == ("net.head.",)


class Lazy(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.LazyConv2d(8, 3, padding=1), nn.LazyBatchNorm2d())
        self.head = nn.LazyConv2d(2, 1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.head(self.body(images))
        return logits


def test_lazy_layers_get_their_shapes_and_the_same_weights_for_one_seed() -> None:
    before = torch.get_rng_state()
    net = Lazy()
    models = [wrap(copied_net(net), 2) for _ in range(3)]
    for model, seed in zip(models, (1, 1, 2), strict=True):
        materialise(model, (8, 8), seed=seed)
    first, again, other = (model.state_dict() for model in models)
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not torch.equal(first["net.head.weight"], other["net.head.weight"])
    assert int(first["net.body.1.num_batches_tracked"]) == 0
    assert isinstance(models[0].net.body[1], SafeBatchNorm2d)
    assert models[0].training
    assert net.body[0].has_uninitialized_params()  # the user's own is as it was


def test_lazy_layers_that_cannot_get_a_shape_are_named() -> None:
    class Training(Lazy):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            features: torch.Tensor = self.body(images)
            return self.head(features) if self.training else features[:, :2]

    with pytest.raises(ModelError, match=r"head.weight: .*in training only.*training mode"):
        materialise(wrap(Training(), 2), (8, 8))

    class Broken(Lazy):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            raise ValueError("no picture of mine")

    with pytest.raises(ModelError, match=r"cannot be initialised .*ValueError: no picture of mine"):
        materialise(wrap(Broken(), 2), (8, 8))


SCRIPT = torch.jit.ScriptModule()  # type: ignore[no-untyped-call]


@pytest.mark.parametrize(
    ("net", "words"),
    [
        (nn.Conv2d, r"the class Conv2d.*Pass an instance: Conv2d\(...\)"),
        (len, "got builtin"),
        (SCRIPT, "a TorchScript network"),
    ],
)
def test_what_is_no_network_is_refused(net: object, words: str) -> None:
    with pytest.raises(ModelError, match=words):
        wrap(net, 2)  # type: ignore[arg-type]
