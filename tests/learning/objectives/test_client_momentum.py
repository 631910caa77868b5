"""FedCM: its steps and its momentum by hand, a gradient whatever the number of steps."""

from __future__ import annotations

from pathlib import Path

import pytest
import safetensors.torch
import torch
from tests.experiments import tiny_experiment
from tests.learning.objectives.quadratics import CENTRES, CURVES, OPTIMUM, Fleet, training

import fleetseg
from fleetseg.federation.checkpoint import list_checkpoints
from fleetseg.learning.travel import travel_of

NUM, LR = len(CURVES), 0.1


def fedcm(alpha: float = 0.1, steps: tuple[int, ...] = (5, 5, 5, 5), **fields: object) -> Fleet:
    settings = training("client momentum", client_momentum={"alpha": alpha}, **fields)
    return Fleet(settings, steps=steps)


def momentum(fleet: Fleet) -> float:
    return fleet.extras_T["momentum"].item()


def test_two_rounds_by_hand() -> None:
    """A step along alpha g + (1 - alpha) D; D is the mean of what was stepped along, down."""
    fleet = fedcm(alpha=0.25, steps=(1, 1, 1, 1))
    fleet.round()
    first = 0.25 * sum(-a * b for a, b in zip(CURVES, CENTRES, strict=True)) / NUM
    assert momentum(fleet) == pytest.approx(first)
    assert fleet.model == pytest.approx(-LR * first)
    sent = fleet.model
    fleet.round()
    mean = sum(a * (sent - b) for a, b in zip(CURVES, CENTRES, strict=True)) / NUM
    second = 0.25 * mean + 0.75 * first
    assert momentum(fleet) == pytest.approx(second)
    assert fleet.model == pytest.approx(sent - LR * second)


def test_it_is_a_gradient_however_many_steps_each_client_takes() -> None:
    """Each change is divided by its own client's travel: with alpha = 1, the mean gradient met."""
    fleet = fedcm(alpha=1.0, steps=(1, 7, 3, 5))
    fleet.round()
    met = []
    for a, b, num_steps in zip(CURVES, CENTRES, fleet.steps, strict=True):
        y = 0.0
        gradients = []
        for _ in range(num_steps):
            gradients.append(a * (y - b))
            y -= LR * gradients[-1]
        met.append(sum(gradients) / num_steps)
    assert momentum(fleet) == pytest.approx(sum(met) / NUM, rel=1e-5)


@pytest.mark.parametrize("nesterov", [False, True])
def test_momentum_of_the_client_s_own_makes_it_no_larger(nesterov: bool) -> None:
    """From a steady gradient D becomes that gradient, not ten times it."""
    fleet = fedcm(alpha=1.0, momentum=0.9, nesterov=nesterov, lr=1e-5)
    fleet.round()
    assert momentum(fleet) == pytest.approx(
        sum(-a * b for a, b in zip(CURVES, CENTRES, strict=True)) / NUM, rel=1e-3
    )


def test_with_alpha_one_it_is_plain() -> None:
    plain, fleet = Fleet(training("plain")), fedcm(alpha=1.0)
    for _ in range(3):
        plain.round()
        fleet.round()
    assert fleet.model == pytest.approx(plain.model, rel=1e-6)


def test_it_is_of_the_cohort_however_small_a_part_of_the_fleet_that_is() -> None:
    """SCAFFOLD's c moves by a share of the fleet; D is the last cohort's, all of it."""
    fleet = fedcm(alpha=1.0, steps=(1, 1, 1, 1))
    fleet.round([2])
    assert momentum(fleet) == pytest.approx(-CURVES[2] * CENTRES[2])
    sent = fleet.model
    fleet.round([0])
    assert momentum(fleet) == pytest.approx(CURVES[0] * (sent - CENTRES[0]), rel=1e-5)
    assert fleet.kept == {2: {}, 0: {}}


def test_clients_drift_less_than_with_fedavg() -> None:
    """Nine tenths of each step are the same for all: no exact optimum, but a nearer one."""
    plain, fleet = Fleet(training("plain")), fedcm()
    for _ in range(500):
        plain.round()
        fleet.round()
    assert abs(fleet.model - OPTIMUM) < 0.2 * abs(plain.model - OPTIMUM)


@pytest.mark.parametrize("uplink", ["none", "topk(20%)+int8"])
def test_a_run_tells_the_last_change_per_travel_and_sends_no_more_up(
    uplink: str, tmp_path: Path
) -> None:
    """All vehicles take as many steps here, so that D is the models' difference by that."""
    runs = {}
    for objective in ("plain", "client momentum"):
        experiment = tiny_experiment(
            tmp_path / "cache",
            training={"objective": objective, "momentum": 0.0, "local_steps": 2},
            federation={"rounds": 2, "uplink": uplink},
        )
        runs[objective] = fleetseg.run(experiment, out=tmp_path / objective.replace(" ", "-"))
    run, plain = runs["client momentum"], runs["plain"].records[0]
    newest, before = (
        safetensors.torch.load_file(path)["values"]
        for path in list_checkpoints(run.folder / "checkpoints")[:2]
    )
    num = sum(p.numel() for p in run.model().parameters())
    travel = travel_of(2, run.experiment.training, 2, 2)
    expected_T = (before[:num] - newest[:num]) / travel
    torch.testing.assert_close(newest[-num:], expected_T, rtol=1e-3, atol=1e-5)
    assert expected_T.abs().max() > 1e-2
    (record, _) = run.records
    vehicles = len(record.cohort)
    assert record.bytes_down == pytest.approx(plain.bytes_down + 4 * num * vehicles, rel=0.02)
    assert record.bytes_up == pytest.approx(plain.bytes_up, rel=0.02)
