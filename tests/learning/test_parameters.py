"""Parameter groups and optimisers: what decays, how fast it learns, in every memory order."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fleetseg.config import HabitsConfig, TrainingConfig
from fleetseg.errors import ConfigError, ModelError
from fleetseg.learning.parameters import OPTIMISERS, build_optimiser, parameter_groups
from fleetseg.models.bisenetv2 import BiSeNetV2
from fleetseg.models.fast_scnn import FastSCNN


class Small(nn.Module):
    """A bit of everything: norms of one and of three dimensions, biases, a head, a frozen layer."""

    head_prefixes = ("head", "aux.")

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.wide_norm = nn.LayerNorm([4, 2, 2])
        self.scale = nn.Parameter(torch.ones(()))
        self.head = nn.Conv2d(4, 2, 1)
        self.aux = nn.Conv2d(4, 2, 1)
        self.header = nn.Conv2d(4, 4, 1, bias=False)  # no head, for all its name
        self.header.weight.requires_grad_(True)
        self.frozen = nn.Conv2d(4, 4, 1)
        self.frozen.requires_grad_(False)


def facts(model: nn.Module, training: TrainingConfig) -> dict[str, tuple[float, float]]:
    """Parameter name -> (weight decay, learning-rate factor)."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return {
        names[id(parameter)]: (group["weight_decay"], group["lr_factor"])
        for group in parameter_groups(model, training)
        for parameter in group["params"]
    }


def test_groups_by_hand() -> None:
    training = TrainingConfig(weight_decay=0.1, head_lr_factor=10.0)
    assert facts(Small(), training) == {
        "conv.weight": (0.1, 1.0),
        "conv.bias": (0.0, 1.0),
        "norm.weight": (0.0, 1.0),
        "norm.bias": (0.0, 1.0),
        "wide_norm.weight": (0.0, 1.0),  # three dimensions, yet a norm
        "wide_norm.bias": (0.0, 1.0),
        "scale": (0.0, 1.0),
        "head.weight": (0.1, 10.0),
        "head.bias": (0.0, 10.0),
        "aux.weight": (0.1, 10.0),
        "aux.bias": (0.0, 10.0),
        "header.weight": (0.1, 1.0),
    }


def test_by_feddrives_habit_everything_decays() -> None:
    training = TrainingConfig(
        weight_decay=0.1, head_lr_factor=10.0, habits=HabitsConfig(decay_all=True)
    )
    usual = facts(Small(), TrainingConfig(weight_decay=0.1, head_lr_factor=10.0))
    assert {decay for decay, _ in usual.values()} == {0.0, 0.1}
    assert facts(Small(), training) == {name: (0.1, lr) for name, (_, lr) in usual.items()}


@pytest.mark.parametrize(
    "model", [Small(), FastSCNN(11), BiSeNetV2(11)], ids=lambda m: type(m).__name__
)
def test_every_trainable_parameter_is_in_exactly_one_group(model: nn.Module) -> None:
    groups = parameter_groups(model, TrainingConfig())
    grouped = [id(parameter) for group in groups for parameter in group["params"]]
    trainable = [id(p) for p in model.parameters() if p.requires_grad]
    assert sorted(grouped) == sorted(trainable)


def test_a_shared_parameter_is_taken_once() -> None:
    conv = nn.Conv2d(2, 2, 1, bias=False)
    (group,) = parameter_groups(nn.Sequential(conv, nn.ReLU(), conv), TrainingConfig())
    assert len(group["params"]) == 1


def test_a_model_without_heads_has_factor_one_everywhere() -> None:
    groups = parameter_groups(nn.Conv2d(2, 2, 1), TrainingConfig(head_lr_factor=10.0))
    assert [group["lr_factor"] for group in groups] == [1.0, 1.0]


def test_a_model_with_nothing_to_train_is_refused() -> None:
    with pytest.raises(ModelError, match="no trainable parameter"):
        parameter_groups(nn.Conv2d(2, 2, 1).requires_grad_(False), TrainingConfig())


def test_optimisers_carry_the_options() -> None:
    sgd = build_optimiser(Small(), TrainingConfig(lr=0.3, momentum=0.8, nesterov=True))
    assert isinstance(sgd, torch.optim.SGD)
    assert {(g["lr"], g["momentum"], g["nesterov"]) for g in sgd.param_groups} == {(0.3, 0.8, True)}
    adamw = build_optimiser(Small(), TrainingConfig(optimiser="adamw", lr=0.3, weight_decay=0.1))
    assert isinstance(adamw, torch.optim.AdamW)
    assert {g["weight_decay"] for g in adamw.param_groups} == {0.0, 0.1}


def test_an_unknown_optimiser_is_named() -> None:
    training = TrainingConfig.model_construct(optimiser="adamv")
    with pytest.raises(ConfigError, match=r"unknown optimiser 'adamv'.*Did you mean 'adamw'"):
        build_optimiser(Small(), training)


def sgd_by_hand(weight: Tensor, gradient: Tensor, steps: int) -> Tensor:
    """Lr .1, momentum .9, weight decay .2, as in torch's documentation of SGD."""
    moment = torch.zeros_like(weight)
    for _ in range(steps):
        moment = 0.9 * moment + gradient + 0.2 * weight
        weight = weight - 0.1 * moment
    return weight


def adamw_by_hand(weight: Tensor, gradient: Tensor, steps: int) -> Tensor:
    """Loshchilov and Hutter 2019, Algorithm 2, lr .1, betas (.9, .999), weight decay .2."""
    first, second = torch.zeros_like(weight), torch.zeros_like(weight)
    for step in range(1, steps + 1):
        weight = weight * (1 - 0.1 * 0.2)
        first = 0.9 * first + 0.1 * gradient
        second = 0.999 * second + 0.001 * gradient**2
        unbiased = first / (1 - 0.9**step), (second / (1 - 0.999**step)).sqrt()
        weight = weight - 0.1 * unbiased[0] / (unbiased[1] + 1e-8)
    return weight


BY_HAND: dict[str, Any] = {"sgd": sgd_by_hand, "adamw": adamw_by_hand}


@pytest.mark.parametrize("name", OPTIMISERS)
@pytest.mark.parametrize("weight_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("gradient_format", [torch.contiguous_format, torch.channels_last])
def test_steps_are_right_in_every_memory_order(
    name: str, weight_format: torch.memory_format, gradient_format: torch.memory_format
) -> None:
    # torch's fused CPU step alone is wrong here where the two formats differ.
    model = nn.Conv2d(4, 8, 3, bias=False).to(memory_format=weight_format)
    start = model.weight.detach().clone()
    gradient = torch.randn(8, 4, 3, 3, generator=torch.Generator().manual_seed(0))
    training = TrainingConfig(optimiser=name, lr=0.1, momentum=0.9, weight_decay=0.2)  # type: ignore[arg-type]
    optimiser = build_optimiser(model, training)
    for _ in range(3):
        model.weight.grad = gradient.clone(memory_format=gradient_format)
        optimiser.step()
    assert torch.allclose(model.weight, BY_HAND[name](start, gradient, 3), atol=1e-5)
