"""FedAdam, FedYogi and FedAdagrad: by hand, as torch.optim has them, and as Flower has them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from fleetseg import rng
from fleetseg.config import FederationConfig
from fleetseg.experiment_file import make_experiment
from fleetseg.federation.server_optim import Slots, first_slots, server_step
from fleetseg.federation.tensors import Layout, ModelState, layout_of

NAMES = ("adam", "yogi", "adagrad")


def settings(name: str, lr: float = 0.1, **adaptive: Any) -> FederationConfig:
    return FederationConfig.model_validate(
        {"server_optimiser": name, "server_lr": lr, "adaptive": adaptive}
    )


def take(
    model: ModelState, slots: Slots, delta_F: np.ndarray, layout: Layout, config: FederationConfig
) -> tuple[ModelState, Slots]:
    return server_step(
        model, slots, delta_F.copy(), model.counters_K, layout=layout, settings=config
    )


def deltas(layout: Layout, rounds: int) -> list[np.ndarray]:
    draw = rng.generator(0, purpose="adaptive-test")
    return [draw.standard_normal(layout.num_floats).astype(np.float32) * 0.1 for _ in range(rounds)]


# With D = 0.2, then -0.1; beta1 0.5, beta2 0.75, tau 0.1, lr 1; v_0 = 0.01, D^2 = 0.04, 0.01.
# m: 0.1, then 0.05 - 0.05 = 0.
BY_HAND = {
    "adam": [0.75 * 0.01 + 0.25 * 0.04, 0.75 * 0.0175 + 0.25 * 0.01],
    # sign(0.01 - 0.04) = -1: it grows by a quarter of 0.04; then sign(0.02 - 0.01) = 1: it shrinks.
    "yogi": [0.01 + 0.25 * 0.04, 0.02 - 0.25 * 0.01],
    "adagrad": [0.01 + 0.04, 0.05 + 0.01],
}


@pytest.mark.parametrize("name", NAMES)
def test_by_hand(name: str) -> None:
    layout = layout_of(nn.Linear(1, 1, bias=False))
    config = settings(name, 1.0, beta1=0.5, beta2=0.75, tau=0.1)
    model = ModelState(torch.tensor([3.0]), torch.empty(0, dtype=torch.int64))
    slots = first_slots(config, layout)
    assert slots["square"].item() == pytest.approx(0.01)
    expected = 3.0
    for delta, mean, square in zip((0.2, -0.1), (0.1, 0.0), BY_HAND[name], strict=True):
        model, slots = take(model, slots, np.array([delta], np.float32), layout, config)
        expected += mean / (math.sqrt(square) + 0.1)
        assert slots["mean"].item() == pytest.approx(mean, abs=1e-7)
        assert slots["square"].item() == pytest.approx(square, rel=1e-6)
        assert model.values_F.item() == pytest.approx(expected, rel=1e-6)


def test_adagrad_without_momentum_is_torch_s(layout: Layout, base: ModelState) -> None:
    config, num = settings("adagrad", beta1=0.0, tau=0.05), layout.num_trainable
    reference = nn.Parameter(base.values_F[:num].clone())
    optimiser = torch.optim.Adagrad(
        [reference], lr=0.1, initial_accumulator_value=0.05**2, eps=0.05
    )
    model, slots = base, first_slots(config, layout)
    for delta_F in deltas(layout, 6):
        reference.grad = -torch.from_numpy(delta_F[:num])
        optimiser.step()
        model, slots = take(model, slots, delta_F, layout, config)
        torch.testing.assert_close(model.values_F[:num], reference.detach())


def test_adam_is_torch_s_but_for_the_bias_that_is_not_corrected(
    layout: Layout, base: ModelState
) -> None:
    """In flower's flavour m and v are Adam's; the step's factor is one round ahead of torch's."""
    config, num = settings("adam", beta2=0.9, tau=1e-12, flavour="flower"), layout.num_trainable
    reference = nn.Parameter(base.values_F[:num].clone().double())
    optimiser = torch.optim.Adam([reference], lr=1.0, betas=(0.9, 0.9), eps=0)
    model, slots = base, first_slots(config, layout)
    for round_, delta_F in enumerate(deltas(layout, 6), start=1):
        before_T, own_T = reference.detach().clone(), model.values_F[:num].double()
        reference.grad = -torch.from_numpy(delta_F[:num]).double()
        optimiser.step()
        model, slots = take(model, slots, delta_F, layout, config)

        def factor(exponent: int) -> float:
            return math.sqrt(1 - 0.9**exponent) / (1 - 0.9**exponent)

        step_T = (reference.detach() - before_T) * 0.1 * factor(round_ + 1) / factor(round_)
        torch.testing.assert_close(
            model.values_F[:num].double() - own_T, step_T, rtol=1e-3, atol=1e-5
        )


def flower(name: str, model: np.ndarray, steps: list[np.ndarray], lr: float) -> np.ndarray:
    """What flwr 1.41's FedAdam, FedYogi and FedAdagrad do, in float64."""
    mean, square = np.zeros_like(model), np.zeros_like(model)
    for round_, delta in enumerate(steps, start=1):
        mean = 0.9 * mean + 0.1 * delta
        if name == "adam":
            square = 0.99 * square + 0.01 * delta**2
        elif name == "yogi":
            square = square - 0.01 * delta**2 * np.sign(square - delta**2)
        else:
            square = square + delta**2
        rate = lr
        if name == "adam":
            rate *= math.sqrt(1 - 0.99 ** (round_ + 1)) / (1 - 0.9 ** (round_ + 1))
        model = model + rate * mean / (np.sqrt(square) + 1e-3)
    return model


@pytest.mark.parametrize("name", NAMES)
def test_flower_s_flavour_is_flower_s(name: str, layout: Layout, base: ModelState) -> None:
    config, num = settings(name, flavour="flower"), layout.num_trainable
    model, slots, steps = base, first_slots(config, layout), deltas(layout, 5)
    for delta_F in steps:
        model, slots = take(model, slots, delta_F, layout, config)
    doubles = [delta_F[:num].astype(np.float64) for delta_F in steps]
    expected = flower(name, base.values_F[:num].double().numpy(), doubles, 0.1)
    np.testing.assert_allclose(model.values_F[:num].numpy(), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_statistics_take_the_mean_change_as_it_is(
    name: str, layout: Layout, base: ModelState
) -> None:
    """Flower's step goes over every array, running variances among them."""
    config, num = settings(name), layout.num_trainable
    model, slots = base, first_slots(config, layout)
    expected_S = base.values_F[num:].clone()
    for delta_F in deltas(layout, 3):
        expected_S += torch.from_numpy(delta_F[num:])
        model, slots = take(model, slots, delta_F, layout, config)
    assert torch.equal(model.values_F[num:], expected_S)


@pytest.mark.parametrize("name", NAMES)
def test_a_large_tau_is_a_small_step_of_sgd(name: str, layout: Layout, base: ModelState) -> None:
    """With tau far above the changes, x moves by lr / (2 tau) of the mean change."""
    config, num = settings(name, 1e4, beta1=0.0, tau=1e4), layout.num_trainable
    (delta_F,) = deltas(layout, 1)
    model, _ = take(base, first_slots(config, layout), delta_F, layout, config)
    step_T = model.values_F[:num] - base.values_F[:num]
    # Adam's v is 0.99 tau^2 by then: 0.3 % more than half.
    torch.testing.assert_close(step_T, 0.5 * torch.from_numpy(delta_F[:num]), rtol=5e-3, atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_slots_and_model_stay_as_they_were(name: str, layout: Layout, base: ModelState) -> None:
    config = settings(name)
    slots = first_slots(config, layout)
    copies, digest = {key: slot.clone() for key, slot in slots.items()}, base.digest()
    take(base, slots, deltas(layout, 1)[0], layout, config)
    assert all(torch.equal(slots[key], copies[key]) for key in slots)
    assert base.digest() == digest


def test_the_paper_s_first_square_and_beta1_of_each_preset() -> None:
    for name, beta1 in (("fedadam", 0.9), ("fedyogi", 0.9), ("fedadagrad", 0.0)):
        federation = make_experiment({"method": name}).federation
        assert federation.server_optimiser == name.removeprefix("fed")
        assert federation.adaptive.beta1 == beta1
        assert federation.adaptive.flavour == "paper"
