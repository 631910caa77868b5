"""FedDC: signs and factors by hand and as its authors' code, the optimum that FedAvg misses."""

from __future__ import annotations

import pytest
import torch
from tests.learning.objectives.quadratics import CENTRES, CURVES, OPTIMUM, Fleet, training

NUM, LR, ALPHA = len(CURVES), 0.1, 0.3


def feddc(steps: tuple[int, ...] = (5, 5, 5, 5), alpha: float = ALPHA) -> Fleet:
    return Fleet(training("drift", drift={"alpha": alpha}), steps=steps, server="drift")


def kept(fleet: Fleet, k: int, name: str) -> float:
    return fleet.kept[k][name].item() if k in fleet.kept else 0.0


class Reference:
    """What `train_FedDC` of the authors does, written down anew in float64 with equal weights."""

    def __init__(self, num_steps: int) -> None:
        self.num_steps, self.sent, self.scored, self.fleet_g = num_steps, 0.0, 0.0, 0.0
        self.drifts, self.own_g = [0.0] * NUM, [0.0] * NUM

    def round(self, cohort: list[int]) -> None:
        ends, changes = [], 0.0
        for k in cohort:
            y = self.sent
            for _ in range(self.num_steps):
                gradient = CURVES[k] * (y - CENTRES[k])
                gradient += ALPHA * (y - (self.sent - self.drifts[k]))
                gradient += self.fleet_g - self.own_g[k]
                y -= LR * gradient
            ends.append(y)
            self.drifts[k] += y - self.sent
            own_g = self.own_g[k] - self.fleet_g + (self.sent - y) / (self.num_steps * LR)
            changes += own_g - self.own_g[k]
            self.own_g[k] = own_g
        self.fleet_g += changes / NUM
        self.scored = sum(ends) / len(ends)
        self.sent = self.scored + sum(self.drifts) / NUM


def test_two_rounds_of_one_step_by_hand() -> None:
    fleet = feddc(steps=(1, 1, 1, 1))
    fleet.round()
    first = [-a * b for a, b in zip(CURVES, CENTRES, strict=True)]  # gradients at 0
    drifts = [-LR * g for g in first]
    fleet_g = sum(first) / NUM
    assert [kept(fleet, k, "control") for k in range(NUM)] == pytest.approx(first)
    assert [kept(fleet, k, "drift") for k in range(NUM)] == pytest.approx(drifts)
    sent = fleet.model
    assert sent == pytest.approx(2 * sum(drifts) / NUM)
    fleet.round()
    gradients = [
        a * (sent - b) + ALPHA * h + fleet_g - g
        for a, b, h, g in zip(CURVES, CENTRES, drifts, first, strict=True)
    ]
    assert fleet.scored == pytest.approx(sent - LR * sum(gradients) / NUM, rel=1e-5)


@pytest.mark.parametrize("cohort", [4, 2])
def test_it_goes_where_the_authors_code_goes(cohort: int) -> None:
    fleet, reference, draw = feddc(), Reference(5), torch.Generator().manual_seed(1)
    for _ in range(30):
        asked = torch.randperm(NUM, generator=draw)[:cohort].tolist()
        fleet.round(asked)
        reference.round(asked)
        assert fleet.scored == pytest.approx(reference.scored, abs=1e-5)
        assert fleet.model == pytest.approx(reference.sent, abs=1e-5)


@pytest.mark.parametrize("cohort", [4, 2])
@pytest.mark.parametrize("steps", [(5, 5, 5, 5), (1, 7, 3, 5)])
def test_it_finds_the_optimum_that_fedavg_misses(steps: tuple[int, ...], cohort: int) -> None:
    plain, fleet = Fleet(training("plain"), steps=steps), feddc(steps)
    draw = torch.Generator().manual_seed(0)
    for _ in range(400):
        plain.round()
        fleet.round(torch.randperm(NUM, generator=draw)[:cohort].tolist())
    assert abs(plain.model - OPTIMUM) > 0.03
    assert fleet.scored == pytest.approx(OPTIMUM, abs=1e-4)
    assert fleet.extras_T["control"].item() == pytest.approx(0, abs=1e-4)


def test_what_the_server_has_is_the_mean_of_all_and_absentees_keep_theirs() -> None:
    fleet, draw = feddc(), torch.Generator().manual_seed(0)
    for _ in range(40):
        cohort = torch.randperm(NUM, generator=draw)[:2].tolist()
        before = {k: dict(fleet.kept.get(k, {})) for k in range(NUM)}
        fleet.round(cohort)
        for k in set(range(NUM)) - set(cohort):
            assert dict(fleet.kept.get(k, {})) == before[k]
        for name, held_T in (
            ("drift", fleet.slots["drift"]),
            ("control", fleet.extras_T["control"]),
        ):
            mean = sum(kept(fleet, k, name) for k in range(NUM)) / NUM
            assert held_T.item() == pytest.approx(mean, abs=1e-6)


@pytest.mark.parametrize("nesterov", [False, True])
def test_momentum_is_part_of_how_far_a_gradient_carries(nesterov: bool) -> None:
    settings = training("drift", momentum=0.9, nesterov=nesterov, lr=0.02, drift={"alpha": 0.1})
    fleet = Fleet(settings, server="drift")
    for _ in range(600):
        fleet.round()
    assert fleet.scored == pytest.approx(OPTIMUM, abs=1e-3)
