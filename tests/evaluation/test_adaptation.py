"""Passes with batch statistics: torch's own gradients, and a model that is left as it was."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from tests.evaluation.test_norms import C, net
from torch import Tensor, nn

from fleetseg.config import AdaptationConfig
from fleetseg.errors import DataError
from fleetseg.evaluation.adaptation import (
    Passes,
    affine_parameters,
    batch_statistics,
    copied,
    optimiser_of,
    step,
)
from fleetseg.evaluation.predict import evaluating
from fleetseg.rng import generator

IMAGES_NHWC = generator(0, purpose="images").integers(0, 255, (3, 12, 16, 3), np.uint8)
IMAGES_NCHW = torch.from_numpy(IMAGES_NHWC).permute(0, 3, 1, 2).float() / 255


def trained_mode(model: nn.Module) -> nn.Module:
    """Torch's own batch statistics: training mode, but for dropout."""
    model = copy.deepcopy(model).train()
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.eval()
    return model


def gradients(model: nn.Module) -> dict[str, Tensor]:
    """Of a loss that depends on all logits, with respect to gains and biases."""
    passes = Passes(model, C)
    with evaluating(model):
        values = copied(affine_parameters(model))
        with passes.learning():
            loss = passes.learned(values, IMAGES_NHWC).square().sum()
            return dict(zip(values, torch.autograd.grad(loss, list(values.values())), strict=True))


def test_gradients_flow_through_the_statistics_as_in_training_mode() -> None:
    model = net()
    found, reference = gradients(model), trained_mode(model)
    reference(IMAGES_NCHW).square().sum().backward()
    wanted = {name: reference.get_parameter(name).grad for name in found}
    assert set(found) == {"1.weight", "1.bias", "4.weight", "4.bias"}
    for name, grad in found.items():
        torch.testing.assert_close(grad, wanted[name], rtol=1e-4, atol=1e-4)
    # With statistics that are constants they would be others.
    with evaluating(model), torch.inference_mode(False), torch.enable_grad():
        constant = copy.deepcopy(model)
        with batch_statistics(constant):
            constant(IMAGES_NCHW).square().sum().backward()
    assert not torch.allclose(found["1.weight"], constant.get_parameter("1.weight").grad)


def test_a_gradient_by_finite_differences() -> None:
    model = net()
    found, passes, name = gradients(model), Passes(model, C), "1.weight"
    for channel in range(6):
        sums = []
        for move in (-1e-2, 1e-2):
            moved = {name: model.get_parameter(name).detach().clone()}
            moved[name][channel] += move
            with evaluating(model):
                sums.append(passes.scored(moved, IMAGES_NHWC).double().square().sum().item())
        slope = (sums[1] - sums[0]) / 2e-2
        assert found[name][channel].item() == pytest.approx(slope, rel=2e-2, abs=0.5)


def test_gradients_do_not_depend_on_how_weights_lie_in_memory() -> None:
    """A run trains channels-last, and a model that is loaded lies as it was saved."""
    model = net()
    plain, moved = gradients(model), gradients(model.to(memory_format=torch.channels_last))
    assert all(torch.equal(plain[name], moved[name]) for name in plain)


def test_values_take_the_place_of_parameters_for_a_pass_only() -> None:
    model = net()
    passes, own = Passes(model, C), model.get_parameter("4.bias").detach().clone()
    with evaluating(model):
        plain = passes.scored({}, IMAGES_NHWC)
        moved = passes.scored({"4.bias": own + 1}, IMAGES_NHWC)
        again = passes.scored({}, IMAGES_NHWC)
    torch.testing.assert_close(moved, plain + 1)
    assert torch.equal(plain, again)


def test_buffers_are_the_same_objects_afterwards_and_after_an_error() -> None:
    model = nn.Sequential(nn.Conv2d(3, C, 3), nn.AdaptiveAvgPool2d(1), nn.BatchNorm2d(C))
    held = {name: buffer for name, buffer in model.named_buffers()}
    passes = Passes(model, C)
    for images in (IMAGES_NHWC, IMAGES_NHWC[:1]):
        with evaluating(model), passes.learning():
            if len(images) > 1:
                passes.learned({}, images)
                continue
            with pytest.raises(DataError, match=r"2: one image alone.*|.*one value per channel"):
                passes.learned({}, images)
    assert {name: buffer for name, buffer in model.named_buffers()} == held
    assert all(not module._forward_pre_hooks for module in model.modules())


def test_steps_by_hand() -> None:
    """Adam's first step is lr in the gradient's direction; SGD's is lr times it."""
    values = copied({"a": torch.tensor([1.0, -2.0]), "unused": torch.tensor([5.0])})
    for name, wanted in (("adam", [0.9, -1.9]), ("sgd", [0.8, -1.6])):
        values = copied({"a": torch.tensor([1.0, -2.0]), "unused": torch.tensor([5.0])})
        optimiser = optimiser_of(values, AdaptationConfig(optimiser=name, lr=0.1))
        step(optimiser, values, values["a"].square().sum())  # gradients 2 and -4
        assert values["a"].tolist() == pytest.approx(wanted)
        assert values["unused"].item() == 5.0
