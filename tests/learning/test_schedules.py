"""Schedules over global rounds, against torch."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.optim import lr_scheduler

from fleetseg.errors import ConfigError
from fleetseg.learning.schedules import SCHEDULES, WARMUP_START, lr_factor

ROUNDS, WARMUP = 20, 5


def torch_factors(name: str, rounds: int) -> list[float]:
    """What torch's schedulers give, one step per round, from a peak of 1."""
    optimiser = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    scheduler = {
        "constant": lambda: lr_scheduler.ConstantLR(optimiser, factor=1.0),
        "poly": lambda: lr_scheduler.PolynomialLR(optimiser, total_iters=rounds, power=0.9),
        "cosine": lambda: lr_scheduler.CosineAnnealingLR(optimiser, T_max=rounds),
        "poly_feddrive": lambda: lr_scheduler.ConstantLR(optimiser, factor=1.0),
        "step_fedseg": lambda: lr_scheduler.MultiStepLR(
            optimiser, milestones=[math.ceil(2 * rounds / 3)]
        ),
        "warmup": lambda: lr_scheduler.LinearLR(
            optimiser, start_factor=WARMUP_START, total_iters=rounds
        ),
    }[name]()
    factors = []
    for _ in range(rounds):
        factors.append(float(optimiser.param_groups[0]["lr"]))
        optimiser.step()
        scheduler.step()
    return factors


@pytest.mark.parametrize("name", SCHEDULES)
def test_rounds_agree_with_torch(name: str) -> None:
    ours = [lr_factor(name, r, 0.0, ROUNDS, 0) for r in range(1, ROUNDS + 1)]
    assert ours == pytest.approx(torch_factors(name, ROUNDS))


@pytest.mark.parametrize("name", SCHEDULES)
def test_warm_up_agrees_with_torch_and_the_schedule_spans_the_rest(name: str) -> None:
    ours = [lr_factor(name, r, 0.0, ROUNDS, WARMUP) for r in range(1, ROUNDS + 1)]
    assert ours[:WARMUP] == pytest.approx(torch_factors("warmup", WARMUP))
    assert ours[WARMUP:] == pytest.approx(torch_factors(name, ROUNDS - WARMUP))


def test_values_by_hand() -> None:
    assert lr_factor("poly", 6, 0.0, 10, 0) == pytest.approx(0.5**0.9)
    assert lr_factor("poly", 10, 0.5, 10, 0) == pytest.approx(0.05**0.9)
    assert lr_factor("cosine", 3, 0.5, 10, 0) == pytest.approx((1 + math.sqrt(0.5)) / 2)
    assert lr_factor("constant", 3, 0.5, 10, 2) == 1.0
    assert lr_factor("poly", 2, 0.5, 10, 2) == pytest.approx(0.01 + 0.99 * 0.75)


@given(
    name=st.sampled_from(sorted(SCHEDULES)),
    total=st.integers(1, 50),
    warmup=st.integers(0, 60),
    round_=st.integers(1, 60),
    progress=st.floats(0, 1, exclude_max=True),
)
def test_factors_lie_above_zero_until_the_last_step(
    name: str, total: int, warmup: int, round_: int, progress: float
) -> None:
    factor = lr_factor(name, round_, progress, total, warmup)
    assert 0.0 <= factor <= 1.0
    if round_ - 1 + progress < min(total, 50) - 1e-6:
        assert factor > 0.0


def test_fedseg_steps_after_round_1000_of_1500() -> None:
    factors = [lr_factor("step_fedseg", r, 0.5, 1500) for r in (1, 1000, 1001, 1500)]
    assert factors == [1.0, 1.0, 0.1, 0.1]


@pytest.mark.parametrize("epochs_and_batches", [1, 2, 12])
def test_feddrives_poly_is_constant_but_for_a_ten_thousandth(epochs_and_batches: int) -> None:
    """The scheduler of its clients, made anew each round for 10000 x epochs x batches steps."""
    steps = range(epochs_and_batches)
    theirs = [(1 - step / (10000 * epochs_and_batches)) ** 0.9 for step in steps]
    ours = [lr_factor("poly_feddrive", 700, step / len(steps), 1600) for step in steps]
    assert ours == pytest.approx(theirs, rel=1e-4)


@pytest.mark.parametrize("name", sorted(SCHEDULES.keys() - {"step_fedseg"}))
def test_a_run_is_one_smooth_curve_however_it_is_cut_into_rounds(name: str) -> None:
    def curve(rounds: int, steps: int) -> list[float]:
        return [
            lr_factor(name, r, step / steps, rounds, rounds // 5)
            for r in range(1, rounds + 1)
            for step in range(steps)
        ]

    assert curve(10, 20) == pytest.approx(curve(20, 10))
    gaps = [abs(b - a) for a, b in zip(curve(10, 100), curve(10, 100)[1:], strict=False)]
    assert max(gaps) < 0.006  # 200 warm-up steps to 1: 0.005 each


def test_a_warm_up_as_long_as_the_run_never_falls() -> None:
    factors = [lr_factor("poly", r, 0.0, 5, 5) for r in range(1, 6)]
    assert factors == sorted(factors)


def test_an_unknown_schedule_is_named() -> None:
    with pytest.raises(ConfigError, match=r"unknown schedule 'cosin'.*Did you mean 'cosine'"):
        lr_factor("cosin", 1, 0.0, 10, 0)
