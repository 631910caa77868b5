"""MimeLite: with one step it is centralised momentum; with more, it stands still in a round."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tests.learning.objectives.quadratics import CENTRES, CURVES, Fleet, training
from torch import nn

from fleetseg.errors import ConfigError
from fleetseg.experiment_file import make_experiment
from fleetseg.learning.hardware import Hardware
from fleetseg.learning.inputs import LocalInputs, RoundContext
from fleetseg.learning.objectives import OBJECTIVES
from fleetseg.learning.parameters import Trainables
from fleetseg.runs.choices import check_choices


def fleet(steps: tuple[int, ...], beta: float = 0.8) -> Fleet:
    return Fleet(training("mimelite", mimelite={"beta": beta}), steps=steps)


def test_with_one_step_it_is_torch_s_momentum_on_the_fleet_s_loss() -> None:
    ours = fleet((1, 1, 1, 1))
    x = nn.Parameter(torch.zeros(1))
    sgd = torch.optim.SGD([x], lr=0.1, momentum=0.8, dampening=0.8)
    sgd.state[x]["momentum_buffer"] = torch.zeros(1)  # else torch begins with an undamped step
    for _ in range(20):
        ours.round()
        pairs = zip(CURVES, CENTRES, strict=True)
        x.grad = torch.stack([a * (x.detach() - b) for a, b in pairs]).mean(0)
        sgd.step()
        assert ours.model == pytest.approx(x.item(), rel=1e-4)


def test_two_rounds_of_two_steps_by_hand() -> None:
    """m is of gradients where a round began, and not of those along the way."""
    ours, beta = fleet((2, 2, 2, 2)), 0.8
    model, momentum = 0.0, 0.0
    for _ in range(2):
        ours.round()
        ends, gradients = [], []
        for a, b in zip(CURVES, CENTRES, strict=True):
            y = model
            for _ in range(2):
                y -= 0.1 * ((1 - beta) * a * (y - b) + beta * momentum)
            ends.append(y)
            gradients.append(a * (model - b))
        model, momentum = sum(ends) / 4, (1 - beta) * sum(gradients) / 4 + beta * momentum
        assert ours.model == pytest.approx(model, rel=1e-4)
        assert ours.extras_T["momentum"].item() == pytest.approx(momentum, rel=1e-4)


def test_a_cohort_s_gradient_counts_whole_and_nothing_is_kept_by_clients() -> None:
    """The share of the fleet that was asked is SCAFFOLD's affair."""
    ours = fleet((1, 1, 1, 1))
    ours.round([0])
    assert ours.extras_T["momentum"].item() == pytest.approx(0.2 * CURVES[0] * -CENTRES[0])
    assert ours.kept == {0: {}}


def test_what_is_not_exchanged_takes_its_own_gradient_where_it_is() -> None:
    mimelite = OBJECTIVES["mimelite"]
    network = nn.ModuleList([nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False)])
    shared = Trainables([network[0].weight], network)
    inputs = LocalInputs(
        RoundContext(0, 1, 1, "car"),
        training("mimelite", mimelite={"beta": 0.5}),
        (1, 1),
        Hardware(torch.device("cpu"), "fp32"),
        extras_T={"momentum": torch.tensor([10.0])},
    )
    memo = mimelite.begin(inputs, shared)
    start = network[0].weight.detach().clone()
    with torch.no_grad():
        network[0].weight.add_(1.0)
    for first, second in ((2.0, 3.0), (4.0, 5.0)):
        for layer in network:
            layer.weight.grad = torch.full((1, 1), first)
        assert mimelite.perturb is not None
        mimelite.perturb(memo, shared)
        assert torch.equal(network[0].weight, start)
        for layer in network:
            layer.weight.grad = torch.full((1, 1), second)
        assert mimelite.correct is not None
        mimelite.correct(memo, shared)
        assert network[0].weight.grad.item() == 0.5 * first + 0.5 * 10
        assert network[1].weight.grad.item() == first
    assert [total.item() for total in memo.sums] == [3.0 + 5.0]


@pytest.mark.parametrize("fields", [{"optimiser": "adamw"}, {"momentum": 0.9}])
def test_a_client_s_own_momentum_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="mimelite's steps have the fleet's momentum"):
        check_choices(make_experiment({"method": "mimelite", "training": fields}))


def test_the_preset_is_the_objective() -> None:
    chosen = make_experiment({"method": "mimelite"}).training
    assert (chosen.objective, chosen.momentum, chosen.mimelite.beta) == ("mimelite", 0.0, 0.9)
