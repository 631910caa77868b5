"""A second head: beside the first in training, unseen in predictions, gone from what is saved."""

from __future__ import annotations

import pytest
import torch
from tests.learning.test_discrepancy import small_model
from torch import Tensor, nn

from fleetseg import rng
from fleetseg.errors import ModelError
from fleetseg.models.build import build_model, wrap
from fleetseg.models.second_head import (
    PREFIX,
    add_second_head,
    both_heads,
    drop_second_head,
    head_parameters,
)

CLASSES = 5


def images(*shape: int) -> Tensor:
    return torch.rand(*shape, generator=rng.torch_generator(0))


@pytest.mark.parametrize(
    ("name", "package", "heads"),
    [
        ("fast_scnn_aux", "", 3),
        # What follows its classifier, upsampling with aligned corners, applies to both.
        ("zoo:deeplabv3/mobilenet_v2", "segmentation_models_pytorch", 2),
        ("zoo:torchvision/deeplabv3_mobilenet_v3_large", "torchvision", 2),
    ],
)
def test_with_the_weights_of_the_first_it_says_the_same(
    name: str, package: str, heads: int
) -> None:
    if package:
        pytest.importorskip(package)
    model = build_model(name, CLASSES)
    add_second_head(model, (64, 96), seed=0)
    half = len(head_parameters(model)) // 2
    first, second = head_parameters(model)[:half], head_parameters(model)[half:]
    assert any(not one.equal(other) for one, other in zip(first, second, strict=True))
    with both_heads(model):
        outputs = model.train()(images(2, 3, 60, 96))
    assert len(outputs) == heads
    assert not torch.allclose(outputs[0], outputs[1])
    with torch.no_grad():
        for one, other in zip(first, second, strict=True):
            other.copy_(one)
    with both_heads(model):
        outputs = model(images(2, 3, 60, 96))
    assert torch.allclose(outputs[0], outputs[1], atol=1e-5)


def test_predictions_are_those_of_the_first_alone() -> None:
    model = small_model().eval()
    shown = images(2, 3, 8, 8)
    before = model(shown)
    add_second_head(model, (8, 8), seed=0)
    assert not model.training
    assert torch.equal(model(shown), before)
    with both_heads(model):
        assert torch.allclose(model(shown), before)
    assert len(model.train()(shown)) == 1  # outside the block


def test_the_seed_alone_makes_its_weights() -> None:
    def made(seed: int) -> Tensor:
        model = small_model()
        add_second_head(model.to(memory_format=torch.channels_last), (8, 8), seed)
        return model.state_dict()[f"{PREFIX}layer.weight"]

    torch.rand(1)  # the caller's own draws do not matter
    assert torch.equal(made(1), made(1))
    assert not torch.equal(made(1), made(2))


def test_without_it_the_network_is_as_it_was() -> None:
    model = small_model()
    keys, prefixes = [*model.state_dict()], model.head_prefixes
    add_second_head(model, (8, 8), seed=0)
    added = [key for key in model.state_dict() if key not in keys]
    assert added == [f"{PREFIX}layer.weight", f"{PREFIX}layer.bias"]
    assert model.head_prefixes == (*prefixes, PREFIX)
    drop_second_head(model)
    assert [*model.state_dict()] == keys
    assert model.head_prefixes == prefixes


def test_logits_of_several_convolutions_are_refused() -> None:
    class Sum(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fine, self.coarse = nn.Conv2d(3, CLASSES, 1), nn.Conv2d(3, CLASSES, 1)

        def forward(self, x: Tensor) -> Tensor:
            total: Tensor = self.fine(x) + self.coarse(x)
            return total

    with pytest.raises(ModelError, match=r"cannot have a second head.*output of one convolution"):
        add_second_head(wrap(Sum(), CLASSES), (8, 8), seed=0)
