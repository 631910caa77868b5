"""How far steps carry a gradient: as torch's SGD moves, FedNova's closed forms, the schedule."""

from __future__ import annotations

import pytest
import torch
from tests.learning.objectives.quadratics import training
from torch import nn

from fleetseg.learning.schedules import lr_factor
from fleetseg.learning.travel import Travel, travel_of

SETTINGS = [(0.0, False), (0.5, False), (0.9, False), (0.5, True), (0.9, True)]


@pytest.mark.parametrize("pull", [0.0, 0.7])
@pytest.mark.parametrize(("momentum", "nesterov"), SETTINGS)
def test_it_is_what_torch_s_sgd_does_to_a_gradient_of_one(
    momentum: float, nesterov: bool, pull: float
) -> None:
    """The loss is y + pull / 2 y^2, from y = 0: its first part's gradient is 1 everywhere."""
    y = nn.Parameter(torch.zeros(1, dtype=torch.float64))
    sgd = torch.optim.SGD([y], lr=1.0, momentum=momentum, nesterov=nesterov)
    travel = Travel(training("plain", momentum=momentum, nesterov=nesterov), pull)
    for lr in (0.3, 0.2, 0.2, 0.05, 0.4):
        y.grad, sgd.param_groups[0]["lr"] = 1 + pull * y.detach(), lr
        sgd.step()
        travel.step(lr)
        assert travel.total == pytest.approx(-y.item(), rel=1e-12)


def test_of_equal_steps_it_is_fednova_s_closed_form() -> None:
    """(K - m (1 - m^K) / (1 - m)) / (1 - m) times lr: Wang et al. 2020, arXiv 2007.07481."""
    settings = training("plain", momentum=0.9, schedule="constant")
    closed = (7 - 0.9 * (1 - 0.9**7) / 0.1) / 0.1
    assert travel_of(7, settings, 3, 10) == pytest.approx(0.1 * closed, rel=1e-12)


def test_with_fedprox_it_is_fednova_s_recursion() -> None:
    """a <- (1 - lr mu) a + 1 for each step."""
    settings, a = training("plain", schedule="constant"), 0.0
    for _ in range(6):
        a = (1 - 0.1 * 2.0) * a + 1
    assert travel_of(6, settings, 1, 10, pull=2.0) == pytest.approx(0.1 * a, rel=1e-12)


def test_the_schedule_is_carried_along() -> None:
    settings = training("plain", schedule="cosine", warmup_rounds=1)
    rates = [0.1 * lr_factor("cosine", 4, k / 3, 10, 1) for k in range(3)]
    assert travel_of(3, settings, 4, 10) == pytest.approx(sum(rates), rel=1e-12)
    assert travel_of(3, settings, 4, 10) != pytest.approx(travel_of(3, settings, 5, 10))


def test_adamw_s_momentum_is_none_of_it() -> None:
    settings = training("plain", optimiser="adamw", momentum=0.9, schedule="constant")
    assert travel_of(4, settings, 1, 10) == pytest.approx(0.4)
