"""SCAFFOLD: signs and factors by hand, the optimum that FedAvg misses, c the mean of all c_i."""

from __future__ import annotations

from pathlib import Path

import pytest
import safetensors.torch
import torch
from tests.experiments import tiny_experiment
from tests.learning.objectives.quadratics import CENTRES, CURVES, OPTIMUM, Fleet, training

import fleetseg
from fleetseg.data.partition.manifest import Manifest
from fleetseg.federation.checkpoint import list_checkpoints
from fleetseg.federation.client_state import ClientStateStore
from fleetseg.federation.rounds import counted_rounds

NUM = len(CURVES)


def control(fleet: Fleet, k: int) -> float:
    return fleet.kept[k]["control"].item() if k in fleet.kept else 0.0


def test_the_first_round_by_hand() -> None:
    """c = c_i = 0, so steps are plain; c_i becomes the mean gradient met, c the mean of those."""
    fleet = Fleet(training("scaffold"), steps=(2, 2, 2, 2))
    fleet.round()
    for k, (a, b) in enumerate(zip(CURVES, CENTRES, strict=True)):
        first = -a * b  # gradient at 0
        second = a * (-0.1 * first - b)
        assert control(fleet, k) == pytest.approx((first + second) / 2, rel=1e-5)
    mean = sum(control(fleet, k) for k in range(NUM)) / NUM
    assert fleet.extras_T["control"].item() == pytest.approx(mean, rel=1e-5)


def test_the_second_round_steps_along_g_minus_own_plus_fleet_s() -> None:
    """pfl-research adds the difference with the other sign, and doubles the drift."""
    fleet = Fleet(training("scaffold"), steps=(1, 1, 1, 1))
    fleet.round()
    start, fleet_c = fleet.model, fleet.extras_T["control"].item()
    own = [control(fleet, k) for k in range(NUM)]
    fleet.round()
    steps = [a * (start - b) - c + fleet_c for a, b, c in zip(CURVES, CENTRES, own, strict=True)]
    assert fleet.model == pytest.approx(start - 0.1 * sum(steps) / NUM, rel=1e-5)


def test_it_finds_the_optimum_that_fedavg_misses() -> None:
    plain, scaffold = Fleet(training("plain")), Fleet(training("scaffold"))
    for fleet in (plain, scaffold):
        for _ in range(300):
            fleet.round()
    assert abs(plain.model - OPTIMUM) > 0.03
    assert scaffold.model == pytest.approx(OPTIMUM, abs=1e-4)
    for k, (a, b) in enumerate(zip(CURVES, CENTRES, strict=True)):
        assert control(scaffold, k) == pytest.approx(a * (OPTIMUM - b), abs=1e-3)
    assert scaffold.extras_T["control"].item() == pytest.approx(0, abs=1e-4)


def test_steps_of_each_client_s_own_number() -> None:
    """K is what was taken, not what was planned: short batches and stragglers."""
    fleet = Fleet(training("scaffold"), steps=(1, 7, 3, 5))
    for _ in range(400):
        fleet.round()
    assert fleet.model == pytest.approx(OPTIMUM, abs=2e-2)


@pytest.mark.parametrize("nesterov", [False, True])
def test_momentum_is_part_of_how_far_a_gradient_carries(nesterov: bool) -> None:
    fleet = Fleet(training("scaffold", momentum=0.9, nesterov=nesterov, lr=0.02))
    for _ in range(400):
        fleet.round()
    assert fleet.model == pytest.approx(OPTIMUM, abs=1e-3)


def test_c_is_the_mean_of_all_and_absentees_keep_theirs() -> None:
    """NVFlare advances c by the mean over the cohort, as if everybody had taken part."""
    fleet, draw = Fleet(training("scaffold")), torch.Generator().manual_seed(0)
    for _ in range(40):
        cohort = torch.randperm(NUM, generator=draw)[:2].tolist()
        before = {k: control(fleet, k) for k in range(NUM)}
        fleet.round(cohort)
        for k in set(range(NUM)) - set(cohort):
            assert control(fleet, k) == before[k]
        mean = sum(control(fleet, k) for k in range(NUM)) / NUM
        assert fleet.extras_T["control"].item() == pytest.approx(mean, abs=1e-6)


def test_a_whole_run_keeps_c_the_mean_of_all_c_i(tmp_path: Path) -> None:
    """Part of the fleet a round, vehicles that vanish: what was not used is counted nowhere."""
    experiment = tiny_experiment(
        tmp_path / "cache",
        training={"objective": "scaffold", "momentum": 0.0},
        federation={
            "rounds": 6, "cohort": 2, "over_selection": 1.5, "weights": "uniform", "quorum": 0.0,
            "deadline_s": 1.5,
            "faults": {
                "dropout": 0.2, "stragglers": 0.5, "slowdown": 9.0, "megabytes_per_s": 1000.0,
            },
        },
    )  # fmt: skip
    run = fleetseg.run(experiment, out=tmp_path / "run")
    lost = [record for record in run.records if len(record.accepted) < len(record.cohort)]
    assert lost, "the case this test is for did not occur"
    names = sorted({name for record in run.records for name in record.cohort})
    kept, counted = ClientStateStore(run.folder / "clients"), counted_rounds(run.records, names)
    own = [kept.load(name, 7, counted[name]).get("objective/control") for name in names]
    sum_T = torch.stack([control_T for control_T in own if control_T is not None]).sum(0)
    newest = list_checkpoints(run.folder / "checkpoints")[0]
    values_F = safetensors.torch.load_file(newest)["values"]
    num_clients = len(Manifest.read(run.folder / "manifest.json").clients)
    assert sum_T.abs().max() > 1e-3
    torch.testing.assert_close(values_F[-len(sum_T) :], sum_T / num_clients, rtol=1e-4, atol=1e-6)
