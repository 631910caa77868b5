"""SAM and ASAM: perturbations by hand, and steps against two explicit passes of autograd."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from tests.learning.objectives.quadratics import CENTRES, CURVES, Fleet, training
from torch import Tensor, nn
from torch.func import functional_call

from fleetseg import rng
from fleetseg.experiment_file import make_experiment
from fleetseg.learning.hardware import Hardware
from fleetseg.learning.inputs import LocalInputs, RoundContext
from fleetseg.learning.local import train_locally
from fleetseg.learning.objectives import OBJECTIVES
from fleetseg.learning.objectives.sam import climb
from fleetseg.learning.parameters import Trainables
from fleetseg.models.build import wrap

SIZE_HW, COUNT, CLASSES = (8, 8), 4, 3
CONTEXT, CPU = RoundContext(0, 1, 1, "car"), Hardware(torch.device("cpu"), "fp32")
FIXED = {
    "batch_size": COUNT, "schedule": "constant", "scale": (1.0, 1.0), "flip": False,
    "colour_jitter": 0.0,
}  # fmt: skip


def parameter(*values: float, gradient: tuple[float, ...] | None) -> nn.Parameter:
    made = nn.Parameter(torch.tensor(values))
    made.grad = None if gradient is None else torch.tensor(gradient)
    return made


def inputs(objective: str, **fields: Any) -> LocalInputs:
    return LocalInputs(CONTEXT, training(objective, **fields), SIZE_HW, CPU)


def perturbed(network: nn.Module, objective: str, **fields: Any) -> None:
    chosen, shared = OBJECTIVES[objective], Trainables([*network.parameters()], network)
    assert chosen.perturb is not None
    chosen.perturb(chosen.begin(inputs(objective, **fields), shared), shared)


# By hand


def test_the_norm_is_one_over_all_tensors() -> None:
    """With a norm for each tensor, both would move by rho."""
    x, y = parameter(3.0, gradient=(3.0,)), parameter(1.0, gradient=(4.0,))
    still = parameter(7.0, gradient=None)
    climb([x, y, still], 0.5)
    assert x.item() == pytest.approx(3.3)
    assert y.item() == pytest.approx(1.4)
    assert still.item() == 7.0


def test_of_no_gradient_no_perturbation() -> None:
    x = parameter(3.0, -1.0, gradient=(0.0, 0.0))
    climb([x], 0.5)
    assert x.tolist() == [3.0, -1.0]


def test_a_round_on_quadratics_by_hand() -> None:
    """y <- y - 0.1 a (y + rho sign(y - b) - b), from 0: away from each centre by rho, first."""
    fleet = Fleet(training("sam", sam={"rho": 0.5}), steps=(2, 2, 2, 2))
    fleet.round()
    ends = []
    for a, b in zip(CURVES, CENTRES, strict=True):
        y = 0.0
        for _ in range(2):
            y -= 0.1 * a * (y + 0.5 * np.sign(y - b) - b)
        ends.append(y)
    assert fleet.model == pytest.approx(sum(ends) / 4, rel=1e-5)


def linear(weight: float, bias: float, gradients: tuple[float, float]) -> nn.Module:
    network = nn.Linear(1, 1)
    with torch.no_grad():
        network.weight.fill_(weight)
        network.bias.fill_(bias)
    network.weight.grad = torch.full((1, 1), gradients[0])
    network.bias.grad = torch.full((1,), gradients[1])
    return network


def test_asam_by_hand() -> None:
    """T = |-2| + 0.5 = 2.5 for the weight, 1 for the bias: T g = (10, 24), of length 26."""
    network = linear(-2.0, 5.0, (4.0, 24.0))
    perturbed(network, "asam", asam={"rho": 1.3, "eta": 0.5})
    assert network.weight.item() == pytest.approx(-2 + 1.3 * 2.5**2 * 4 / 26)
    assert network.bias.item() == pytest.approx(5 + 1.3 * 24 / 26)


def test_asam_scales_nothing_that_a_norm_layer_learns() -> None:
    network = nn.Sequential(nn.Conv2d(1, 1, 1, bias=False), nn.BatchNorm2d(1))
    with torch.no_grad():
        network[0].weight.fill_(3.0)
        network[1].weight.fill_(3.0)
    for value in network.parameters():
        value.grad = torch.ones_like(value)
    perturbed(network, "asam", asam={"rho": 1.0, "eta": 0.0})
    length = np.sqrt(3**2 + 1 + 1)
    assert network[0].weight.item() == pytest.approx(3 + 9 / length)
    assert network[1].weight.item() == pytest.approx(3 + 1 / length)
    assert network[1].bias.item() == pytest.approx(1 / length)


# Invariants


def two_layers(scale: float) -> nn.Module:
    with rng.torch_default(0, purpose="asam"):
        network = nn.Sequential(
            nn.Conv2d(3, 5, 3, bias=False), nn.ReLU(), nn.Conv2d(5, CLASSES, 1, bias=False)
        )
    with torch.no_grad():
        network[0].weight.mul_(scale)
        network[2].weight.div_(scale)
    return network


@pytest.mark.parametrize(("objective", "differs"), [("asam", False), ("sam", True)])
def test_asam_is_blind_to_the_scales_of_layers(objective: str, differs: bool) -> None:
    images_NCHW, labels_NHW = batch()
    losses = []
    for scale in (1.0, 4.0):
        network = two_layers(scale)
        nn.functional.cross_entropy(network(images_NCHW), labels_NHW[:, 1:-1, 1:-1]).backward()
        perturbed(network, objective, asam={"rho": 0.5, "eta": 0.0}, sam={"rho": 0.5})
        loss = nn.functional.cross_entropy(network(images_NCHW), labels_NHW[:, 1:-1, 1:-1])
        losses.append(loss.item())
    assert (losses[0] != pytest.approx(losses[1], rel=1e-4)) is differs


def test_what_is_not_exchanged_is_perturbed_too_and_what_is_frozen_is_not() -> None:
    network = nn.Sequential(nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1))
    network[1].bias.requires_grad_(False)
    before = [p.detach().clone() for p in network.parameters()]
    for value in network.parameters():
        value.grad = torch.ones_like(value)
    shared = Trainables([*network[0].parameters()], network)
    sam = OBJECTIVES["sam"]
    assert sam.perturb is not None
    sam.perturb(sam.begin(inputs("sam"), shared), shared)
    moved = [not torch.equal(a, b) for a, b in zip(before, network.parameters(), strict=True)]
    assert moved == [True, True, True, False]


# Against two explicit passes


def pairs() -> list[tuple[np.ndarray, np.ndarray]]:
    draw = rng.generator(0, purpose="sam")
    return [
        (
            draw.integers(0, 256, (*SIZE_HW, 3), np.uint8),
            draw.integers(0, CLASSES, SIZE_HW, np.uint8),
        )
        for _ in range(COUNT)
    ]


def batch() -> tuple[Tensor, Tensor]:
    images = np.stack([image for image, _ in pairs()])
    labels = np.stack([label for _, label in pairs()])
    return torch.from_numpy(images).permute(0, 3, 1, 2) / 255, torch.from_numpy(labels).long()


def small_net() -> nn.Module:
    with rng.torch_default(1, purpose="sam"):
        return wrap(
            nn.Sequential(
                nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(),
                nn.Conv2d(4, CLASSES, 1),
            ),
            CLASSES,
        )  # fmt: skip


Epsilon = Callable[[dict[str, Tensor], dict[str, Tensor]], dict[str, Tensor]]


def sam_of_the_paper(rho: float) -> Epsilon:
    def epsilon(_: dict[str, Tensor], g: dict[str, Tensor]) -> dict[str, Tensor]:
        length = torch.cat([part.flatten() for part in g.values()]).norm()
        return {name: rho * part / length for name, part in g.items()}

    return epsilon


def asam_of_the_paper(rho: float, eta: float) -> Epsilon:
    def epsilon(w: dict[str, Tensor], g: dict[str, Tensor]) -> dict[str, Tensor]:
        is_weight = {name: value.dim() == 4 for name, value in w.items()}
        t = {n: w[n].abs() + eta if is_weight[n] else torch.ones_like(w[n]) for n in w}
        length = torch.cat([(t[n] * g[n]).flatten() for n in w]).norm()
        return {n: rho * t[n] ** 2 * g[n] / length for n in w}

    return epsilon


def explicit_steps(epsilon: Epsilon, steps: int, lr: float, decay: float) -> dict[str, Tensor]:
    """SGD with momentum 0.9 on plain dictionaries; the second pass is given copied statistics."""
    model = small_net().train()
    w = {name: p.detach().clone() for name, p in model.named_parameters()}
    buffers = {name: b.clone() for name, b in model.named_buffers()}
    images_NCHW, labels_NHW = batch()

    def gradient(at: dict[str, Tensor], stats: dict[str, Tensor]) -> dict[str, Tensor]:
        leaves = {name: value.clone().requires_grad_() for name, value in at.items()}
        logits_NCHW = functional_call(model, (leaves, stats), (images_NCHW,))[0]
        loss = nn.functional.cross_entropy(logits_NCHW, labels_NHW)
        return dict(zip(leaves, torch.autograd.grad(loss, [*leaves.values()]), strict=True))

    velocity = {name: torch.zeros_like(value) for name, value in w.items()}
    for _ in range(steps):
        first = gradient(w, buffers)  # moves the statistics
        moved = epsilon(w, first)
        second = gradient(
            {n: w[n] + moved[n] for n in w}, {n: b.clone() for n, b in buffers.items()}
        )
        for name, value in w.items():
            decayed = second[name] + (decay * value if value.dim() == 4 else 0)
            velocity[name] = 0.9 * velocity[name] + decayed
            w[name] = value - lr * velocity[name]
    return {**w, **buffers}


@pytest.mark.parametrize(
    ("objective", "epsilon"),
    [("sam", sam_of_the_paper(0.3)), ("asam", asam_of_the_paper(0.8, 0.1))],
    ids=["sam", "asam"],
)
def test_steps_are_those_of_two_explicit_passes(objective: str, epsilon: Epsilon) -> None:
    """Weights, and statistics that a batch has moved once: decay is no part of the perturbation."""
    fields = {
        "lr": 0.2, "momentum": 0.9, "weight_decay": 0.05, "local_steps": 3,
        "sam": {"rho": 0.3}, "asam": {"rho": 0.8, "eta": 0.1}, **FIXED,
    }  # fmt: skip
    model = small_net()
    train_locally(model, pairs(), inputs(objective, **fields))
    expected = explicit_steps(epsilon, 3, 0.2, 0.05)
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value, expected[name], rtol=1e-4, atol=1e-5)
    plain = small_net()
    train_locally(plain, pairs(), inputs("plain", **fields))
    assert (plain.net[0].weight - model.net[0].weight).abs().max() > 1e-3


def test_without_rho_it_is_plain_bit_for_bit() -> None:
    models = [small_net(), small_net(), small_net()]
    choices = [("plain", {}), ("sam", {"sam": {"rho": 0.0}}), ("asam", {"asam": {"rho": 0.0}})]
    for model, (objective, fields) in zip(models, choices, strict=True):
        train_locally(model, pairs(), inputs(objective, local_steps=3, **fields, **FIXED))
    for model in models[1:]:
        for one, other in zip(models[0].parameters(), model.parameters(), strict=True):
            assert torch.equal(one, other)


def test_the_preset_is_the_objective() -> None:
    experiment = make_experiment({"method": "fedsam"})
    assert (experiment.training.objective, experiment.training.sam.rho) == ("sam", 0.1)
