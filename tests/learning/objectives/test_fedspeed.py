"""FedSpeed: a round by hand, the optimum that FedAvg misses, gradients that the clients gather."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tests.learning.objectives.quadratics import CENTRES, CURVES, OPTIMUM, Fleet, training

from fleetseg.experiment_file import make_experiment


def fleet(rho: float = 0.0, mu: float = 1.0, steps: tuple[int, ...] = (5, 5, 5, 5)) -> Fleet:
    return Fleet(training("fedspeed", fedspeed={"rho": rho, "mu": mu}), steps=steps)


def pulls(of: Fleet, k: int) -> float:
    return of.kept[k]["pulls"].item()


def test_two_rounds_by_hand() -> None:
    """Two steps of 0.1 along a (y + rho sign - b) + mu (y - w) - h; then h, then y - h / mu."""
    rho, mu = 0.2, 0.5
    ours = fleet(rho, mu, steps=(2, 2, 2, 2))
    model, own = 0.0, [0.0] * 4
    for _ in range(2):
        ours.round()
        sent = []
        for k, (a, b) in enumerate(zip(CURVES, CENTRES, strict=True)):
            y = model
            for _ in range(2):
                uphill = y + rho * np.sign(a * (y - b))
                y -= 0.1 * (a * (uphill - b) + mu * (y - model) - own[k])
            own[k] -= mu * (y - model)
            sent.append(y - own[k] / mu)
            assert pulls(ours, k) == pytest.approx(own[k], rel=1e-4)
        model = sum(sent) / 4
        assert ours.model == pytest.approx(model, rel=1e-4)


@pytest.mark.parametrize("steps", [(5, 5, 5, 5), (1, 7, 3, 5)])
def test_it_finds_the_optimum_that_fedavg_misses(steps: tuple[int, ...]) -> None:
    """Whatever the number of a client's steps; there each has gathered its own gradient."""
    plain, ours = Fleet(training("plain"), steps=steps), fleet(steps=steps)
    for _ in range(400):
        plain.round()
        ours.round()
    assert abs(plain.model - OPTIMUM) > 0.03
    assert ours.model == pytest.approx(OPTIMUM, abs=1e-4)
    for k, (a, b) in enumerate(zip(CURVES, CENTRES, strict=True)):
        assert pulls(ours, k) == pytest.approx(a * (OPTIMUM - b), abs=1e-3)


def test_mu_is_the_coefficient_and_not_its_inverse() -> None:
    """In the first round a client sends w + 2 (y - w); a strong pull keeps y at home."""
    weak, strong = fleet(mu=0.1), fleet(mu=5.0)
    for one in (weak, strong):
        one.round()
    assert abs(strong.model) < abs(weak.model)
    plain = Fleet(training("prox", prox={"mu": 5.0}))
    plain.round()
    assert strong.model == pytest.approx(2 * plain.model, rel=1e-4)


def test_who_is_absent_keeps_what_it_has_gathered() -> None:
    ours = fleet()
    ours.round()
    before = pulls(ours, 3)
    for _ in range(50):
        ours.round([0, 1, 2])
    assert pulls(ours, 3) == before
    assert torch.isfinite(torch.tensor(ours.model))


def test_the_preset_is_the_objective() -> None:
    chosen = make_experiment({"method": "fedspeed"}).training
    assert (chosen.objective, chosen.fedspeed.rho, chosen.fedspeed.mu) == ("fedspeed", 0.1, 0.1)
