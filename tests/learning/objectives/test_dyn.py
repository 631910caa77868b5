"""FedDyn: its gradient by finite differences, its sums by hand, the optimum that FedAvg misses."""

from __future__ import annotations

from pathlib import Path

import pytest
import safetensors.torch
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.experiments import tiny_experiment
from tests.learning.objectives.quadratics import CENTRES, CURVES, OPTIMUM, Fleet, training
from torch import Tensor, nn

import fleetseg
from fleetseg.data.partition.manifest import Manifest
from fleetseg.federation.checkpoint import list_checkpoints
from fleetseg.federation.client_state import ClientStateStore
from fleetseg.federation.rounds import counted_rounds
from fleetseg.learning.hardware import Hardware
from fleetseg.learning.inputs import LocalInputs, RoundContext
from fleetseg.learning.objectives import OBJECTIVES, LocalCost
from fleetseg.learning.parameters import Trainables

DYN, NUM = OBJECTIVES["dyn"], len(CURVES)


def dyn(alpha: float = 0.5, steps: tuple[int, ...] = (5, 5, 5, 5)) -> Fleet:
    return Fleet(training("dyn", dyn={"alpha": alpha}), steps=steps, server="drift")


def drift(fleet: Fleet, k: int) -> float:
    return fleet.kept[k]["drift"].item() if k in fleet.kept else 0.0


def corrected(received_T: Tensor, now_T: Tensor, drift_T: Tensor, alpha: float) -> Tensor:
    """Return the gradient that stands after the correction of zeros."""
    settings, cpu = training("dyn", dyn={"alpha": alpha}), Hardware(torch.device("cpu"), "fp32")
    inputs = LocalInputs(
        RoundContext(0, 1, 1, "car"), settings, (1, 1), cpu, state={"drift": drift_T}
    )
    parameter = nn.Parameter(received_T.clone())
    shared = Trainables([parameter])
    memo = DYN.begin(inputs, shared)
    parameter.data.copy_(now_T)
    parameter.grad = torch.zeros_like(now_T)
    assert DYN.correct is not None
    DYN.correct(memo, shared)
    return parameter.grad


@given(alpha=st.floats(0.01, 2), seed=st.integers(0, 2**16))
def test_it_is_the_gradient_of_the_paper_s_regulariser(alpha: float, seed: int) -> None:
    """-<g, y> + alpha / 2 |y - w|^2 with g = -alpha h: PFLlib has the norm without its square."""
    draw = torch.Generator().manual_seed(seed)
    w, y, h = (torch.randn(4, generator=draw, dtype=torch.float64) for _ in range(3))

    def regulariser(at: Tensor) -> float:
        return float(alpha * h @ at + alpha / 2 * (at - w).square().sum())

    slopes = []
    for k in range(4):
        moved = torch.zeros(4, dtype=torch.float64)
        moved[k] = 1e-3
        slopes.append((regulariser(y + moved) - regulariser(y - moved)) / 2e-3)
    gradient = corrected(w.float(), y.float(), h.float(), alpha)
    assert gradient.tolist() == pytest.approx(slopes, abs=1e-4)


def test_two_rounds_by_hand() -> None:
    """One step of 0.1 each: in the first round plain ones, as h_i and y - w are zero."""
    fleet = dyn(alpha=0.5, steps=(1, 1, 1, 1))
    fleet.round()
    first = [0.1 * a * b for a, b in zip(CURVES, CENTRES, strict=True)]
    assert [drift(fleet, k) for k in range(NUM)] == pytest.approx(first)
    mean = sum(first) / NUM
    assert fleet.scored == pytest.approx(mean)
    assert fleet.model == pytest.approx(2 * mean)  # shifted by the mean drift
    sent = fleet.model
    fleet.round()
    ends = [
        sent - 0.1 * (a * (sent - b) + 0.5 * h)
        for a, b, h in zip(CURVES, CENTRES, first, strict=True)
    ]
    assert fleet.scored == pytest.approx(sum(ends) / NUM)
    drifts = [h + y - sent for h, y in zip(first, ends, strict=True)]
    assert [drift(fleet, k) for k in range(NUM)] == pytest.approx(drifts)
    assert fleet.model == pytest.approx(sum(ends) / NUM + sum(drifts) / NUM)


@pytest.mark.parametrize("cohort", [4, 2])
@pytest.mark.parametrize("steps", [(5, 5, 5, 5), (1, 7, 3, 5)])
def test_it_finds_the_optimum_that_fedavg_misses(steps: tuple[int, ...], cohort: int) -> None:
    plain, fleet = Fleet(training("plain"), steps=steps), dyn(steps=steps)
    draw = torch.Generator().manual_seed(0)
    for _ in range(400):
        asked = torch.randperm(NUM, generator=draw)[:cohort].tolist()
        plain.round()
        fleet.round(asked)
    assert abs(plain.model - OPTIMUM) > 0.03
    assert fleet.scored == pytest.approx(OPTIMUM, abs=1e-4)
    gradients = [-0.5 * drift(fleet, k) for k in range(NUM)]
    met = [a * (fleet.ends[k] - b) for k, (a, b) in enumerate(zip(CURVES, CENTRES, strict=True))]
    assert gradients == pytest.approx(met, abs=1e-3)
    assert sum(gradients) == pytest.approx(0, abs=1e-3)


def test_the_server_has_the_mean_of_all_drifts_and_absentees_keep_theirs() -> None:
    fleet, draw = dyn(), torch.Generator().manual_seed(0)
    for _ in range(40):
        cohort = torch.randperm(NUM, generator=draw)[:2].tolist()
        before = {k: drift(fleet, k) for k in range(NUM)}
        fleet.round(cohort)
        for k in set(range(NUM)) - set(cohort):
            assert drift(fleet, k) == before[k]
        mean = sum(drift(fleet, k) for k in range(NUM)) / NUM
        assert fleet.slots["drift"].item() == pytest.approx(mean, abs=1e-6)


def test_a_parameter_without_a_gradient_is_left_alone_and_drifts_all_the_same() -> None:
    settings, cpu = training("dyn"), Hardware(torch.device("cpu"), "fp32")
    parameter = nn.Parameter(torch.ones(2))
    shared = Trainables([parameter])
    memo = DYN.begin(LocalInputs(RoundContext(0, 1, 1, "car"), settings, (1, 1), cpu), shared)
    assert DYN.correct is not None
    DYN.correct(memo, shared)
    assert parameter.grad is None
    parameter.data += 0.5
    state, extras = DYN.end(memo, shared, LocalCost(1, 0.1))
    assert state["drift"].tolist() == [0.5, 0.5]
    assert extras == {}


@pytest.mark.parametrize("objective", ["dyn", "drift"])
def test_a_whole_run_keeps_the_mean_of_all_drifts(objective: str, tmp_path: Path) -> None:
    """Part of the fleet a round, vehicles that vanish: what was not used is counted nowhere."""
    experiment = tiny_experiment(
        tmp_path / "cache",
        training={"objective": objective, "momentum": 0.0},
        federation={
            "rounds": 6, "cohort": 2, "over_selection": 1.5, "weights": "uniform", "quorum": 0.0,
            "server_optimiser": "drift", "deadline_s": 1.5,
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
    own = [kept.load(name, 7, counted[name]).get("objective/drift") for name in names]
    sum_T = torch.stack([drift_T for drift_T in own if drift_T is not None]).sum(0)
    state = safetensors.torch.load_file(list_checkpoints(run.folder / "checkpoints")[0])
    num_clients = len(Manifest.read(run.folder / "manifest.json").clients)
    assert sum_T.abs().max() > 1e-3
    torch.testing.assert_close(state["slot/drift"], sum_T / num_clients, rtol=1e-4, atol=1e-6)
