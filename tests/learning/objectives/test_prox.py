"""FedProx: its pull is the gradient of mu / 2 |y - w|^2, by finite differences and by hand."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.learning.objectives.quadratics import CENTRES, CURVES, Fleet, training
from torch import Tensor, nn

from fleetseg.experiment_file import make_experiment
from fleetseg.learning.hardware import Hardware
from fleetseg.learning.inputs import LocalInputs, RoundContext
from fleetseg.learning.objectives import OBJECTIVES
from fleetseg.learning.parameters import Trainables

PROX = OBJECTIVES["prox"]


def inputs(mu: float) -> LocalInputs:
    context, cpu = RoundContext(0, 1, 1, "car"), Hardware(torch.device("cpu"), "fp32")
    return LocalInputs(context, training("prox", prox={"mu": mu}), (1, 1), cpu)


def pulled(received: list[Tensor], now: list[Tensor], mu: float) -> list[Tensor]:
    """Return the gradients that stand after the correction of zeros."""
    parameters = [nn.Parameter(value.clone()) for value in received]
    shared = Trainables(parameters)
    memo = PROX.begin(inputs(mu), shared)
    for parameter, value in zip(parameters, now, strict=True):
        parameter.data.copy_(value)
        parameter.grad = torch.zeros_like(value)
    assert PROX.correct is not None
    PROX.correct(memo, shared)
    return [p.grad for p in parameters if p.grad is not None]


def test_by_hand() -> None:
    (gradient,) = pulled([torch.tensor([1.0, 2.0])], [torch.tensor([3.0, -2.0])], 0.5)
    assert gradient.tolist() == [1.0, -2.0]


@given(mu=st.floats(0, 2), seed=st.integers(0, 2**16))
def test_it_is_the_gradient_of_the_squared_distance(mu: float, seed: int) -> None:
    draw = torch.Generator().manual_seed(seed)
    received = [torch.randn(shape, generator=draw) for shape in ((2, 3), (4,))]
    now = [torch.randn(shape, generator=draw) for shape in ((2, 3), (4,))]

    def penalty(values: list[Tensor]) -> float:
        parts = zip(values, received, strict=True)
        return mu / 2 * sum(float((a - b).double().square().sum()) for a, b in parts)

    for at, gradient in enumerate(pulled(received, now, mu)):
        for index in range(gradient.numel()):
            shifted = []
            for step in (1e-2, -1e-2):
                moved = [value.clone() for value in now]
                moved[at].view(-1)[index] += step
                shifted.append(penalty(moved))
            slope = (shifted[0] - shifted[1]) / 2e-2
            assert float(gradient.view(-1)[index]) == pytest.approx(slope, abs=1e-3)


def test_the_pull_grows_with_the_distance() -> None:
    """Of the norm without its square, as Flower's docstring and three others have it, it is mu."""
    zero = torch.zeros(8)
    near, far = (pulled([zero], [torch.full((8,), size)], 0.1)[0].norm() for size in (1.0, 10.0))
    assert float(far / near) == pytest.approx(10)


def test_a_parameter_without_a_gradient_is_left_alone() -> None:
    parameter = nn.Parameter(torch.ones(2))
    shared = Trainables([parameter])
    memo = PROX.begin(inputs(1.0), shared)
    assert PROX.correct is not None
    PROX.correct(memo, shared)
    assert parameter.grad is None


def test_without_mu_it_is_plain_and_with_a_large_one_stays_at_home() -> None:
    plain, none = Fleet(training("plain")), Fleet(training("prox", prox={"mu": 0.0}))
    strong = Fleet(training("prox", prox={"mu": 9.0}))
    for fleet in (plain, none, strong):
        fleet.round()
    assert plain.model == none.model
    assert 0 < abs(strong.model) < abs(plain.model)


def test_a_round_on_quadratics_by_hand() -> None:
    """Steps of 0.1: y <- y - 0.1 (a (y - b) + mu (y - w)), from w = 0."""
    fleet = Fleet(training("prox", prox={"mu": 0.5}), steps=(2, 2, 2, 2))
    fleet.round()
    ends = []
    for a, b in zip(CURVES, CENTRES, strict=True):
        first = 0.1 * a * b
        ends.append(first - 0.1 * (a * (first - b) + 0.5 * first))
    assert fleet.model == pytest.approx(sum(ends) / 4, rel=1e-5)


def test_the_preset_is_the_objective() -> None:
    experiment = make_experiment({"method": "fedprox"})
    assert (experiment.training.objective, experiment.training.prox.mu) == ("prox", 0.01)
