from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from fleetseg import rng
from fleetseg.federation.aggregate import FixedPointMean
from fleetseg.federation.checkpoint import no_momentum
from fleetseg.federation.server_optim import server_step
from fleetseg.federation.tensors import Layout, ModelState, layout_of


def deltas(layout: Layout, rounds: int) -> list[np.ndarray]:
    draw = rng.generator(0, purpose="server-optim-test")
    return [draw.standard_normal(layout.num_floats).astype(np.float32) * 0.1 for _ in range(rounds)]


def test_fedavg_by_hand() -> None:
    layout = layout_of(nn.Linear(3, 1, bias=False))
    model = ModelState(torch.tensor([1.0, 2.0, 3.0]), torch.empty(0, dtype=torch.int64))
    delta = np.array([0.5, -1, 2], np.float32)
    new, momentum_T = server_step(
        model, no_momentum(), delta, model.counters_K, layout=layout, lr=1.0, momentum=0.0
    )
    assert new.values_F.tolist() == [1.5, 1.0, 5.0]
    assert momentum_T.numel() == 0
    assert model.values_F.tolist() == [1, 2, 3]


def test_fedavgm_by_hand() -> None:
    layout = layout_of(nn.Linear(1, 1, bias=False))
    model, momentum_T = ModelState(torch.tensor([0.0]), torch.empty(0, dtype=torch.int64)), None
    momentum_T = torch.zeros(1)
    seen = []
    for delta in (1.0, 1.0, 0.0):
        model, momentum_T = server_step(
            model,
            momentum_T,
            np.array([delta], np.float32),
            model.counters_K,
            layout=layout,
            lr=2.0,
            momentum=0.5,
        )
        seen.append((momentum_T.item(), model.values_F.item()))
    assert seen == [(1.0, 2.0), (1.5, 5.0), (0.75, 6.5)]


@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.9])
@pytest.mark.parametrize("lr", [1.0, 0.3])
def test_is_torch_sgd_on_the_pseudo_gradient(
    layout: Layout, base: ModelState, lr: float, momentum: float
) -> None:
    reference = nn.Parameter(base.values_F[: layout.num_trainable].clone())
    sgd = torch.optim.SGD([reference], lr=lr, momentum=momentum)
    model, momentum_T = base, torch.zeros(layout.num_trainable) if momentum else no_momentum()
    for delta_F in deltas(layout, rounds=8):
        reference.grad = -torch.from_numpy(delta_F[: layout.num_trainable])
        sgd.step()
        model, momentum_T = server_step(
            model,
            momentum_T,
            delta_F,
            model.counters_K,
            layout=layout,
            lr=lr,
            momentum=momentum,
        )
        torch.testing.assert_close(
            model.values_F[: layout.num_trainable], reference.detach(), rtol=1e-6, atol=1e-7
        )


@pytest.mark.parametrize(("lr", "momentum"), [(1.0, 0.0), (0.1, 0.0), (0.1, 0.9)])
def test_statistics_are_averaged_untouched_by_lr_and_momentum(
    layout: Layout, base: ModelState, lr: float, momentum: float
) -> None:
    num = layout.num_trainable
    model, momentum_T = base, torch.zeros(num)
    expected = base.values_F[num:].clone()
    for delta_F in deltas(layout, rounds=3):
        expected += torch.from_numpy(delta_F[num:])
        model, momentum_T = server_step(
            model,
            momentum_T,
            delta_F,
            model.counters_K,
            layout=layout,
            lr=lr,
            momentum=momentum,
        )
    assert torch.equal(model.values_F[num:], expected)
    assert momentum_T.shape == (num,)


def test_counters_are_taken_as_given(layout: Layout, base: ModelState) -> None:
    given = torch.tensor([2**53 + 1])
    zero = np.zeros(layout.num_floats, np.float32)
    new, _ = server_step(base, no_momentum(), zero, given, layout=layout, lr=0.1, momentum=0.0)
    assert new.counters_K.dtype == torch.int64
    assert new.counters_K.tolist() == [2**53 + 1]
    given.fill_(0)
    assert new.counters_K.tolist() == [2**53 + 1]


def test_model_and_momentum_stay_and_the_delta_s_memory_is_taken_over(
    layout: Layout, base: ModelState
) -> None:
    (delta_F,) = deltas(layout, rounds=1)
    before = base.digest()
    momentum_T = torch.ones(layout.num_trainable)
    new, _ = server_step(
        base, momentum_T, delta_F, base.counters_K, layout=layout, lr=0.5, momentum=0.9
    )
    assert base.digest() == before
    assert new.values_F.data_ptr() == delta_F.ctypes.data
    assert momentum_T.tolist() == [1.0] * layout.num_trainable


def test_rounding_never_leaves_a_negative_variance() -> None:
    """A dead channel's variance decays to the size of the rounding step of the mean."""
    layout = layout_of(nn.Sequential(nn.BatchNorm1d(1)))
    entry = layout.by_key["0.running_var"]
    smallest = 0.0
    for var in np.geomspace(1e-12, 1e-9, 40).astype(np.float32):
        values_F = torch.zeros(layout.num_floats)
        values_F[entry.start] = float(var)
        delta = np.zeros(layout.num_floats, np.float32)
        delta[entry.start] = -var
        mean = FixedPointMean(layout.num_floats, total_weight=3)
        for _ in range(3):
            mean.add(delta, 1)
        mean_delta_F = mean.take_mean()
        smallest = min(smallest, float(var + mean_delta_F[entry.start]))
        model = ModelState(values_F, torch.zeros(1, dtype=torch.int64))
        new, _ = server_step(
            model,
            no_momentum(),
            mean_delta_F,
            model.counters_K,
            layout=layout,
            lr=1.0,
            momentum=0.0,
        )
        assert new.values_F[entry.start] >= 0
    assert smallest < 0, "the case this test is for did not occur"
