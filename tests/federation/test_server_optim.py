"""The server's step: FedAvg by hand, momentum as in torch, statistics untouched."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import fleetseg
from fleetseg import rng
from fleetseg.config import FederationConfig
from fleetseg.errors import ConfigError
from fleetseg.experiment_file import make_experiment
from fleetseg.federation.aggregate import FixedPointMean
from fleetseg.federation.server_optim import Slots, first_slots, server_step
from fleetseg.federation.tensors import Layout, ModelState, layout_of


def fedavgm(lr: float, momentum: float) -> FederationConfig:
    return FederationConfig(server_lr=lr, server_momentum=momentum)


def deltas(layout: Layout, rounds: int) -> list[np.ndarray]:
    draw = rng.generator(0, purpose="server-optim-test")
    return [draw.standard_normal(layout.num_floats).astype(np.float32) * 0.1 for _ in range(rounds)]


def test_fedavg_by_hand() -> None:
    layout = layout_of(nn.Linear(3, 1, bias=False))
    model = ModelState(torch.tensor([1.0, 2.0, 3.0]), torch.empty(0, dtype=torch.int64))
    delta = np.array([0.5, -1, 2], np.float32)
    new, slots = server_step(
        model,
        {},
        delta,
        model.counters_K,
        layout=layout,
        settings=fedavgm(1.0, 0.0),
    )
    assert new.values_F.tolist() == [1.5, 1.0, 5.0]
    assert slots == {}
    assert model.values_F.tolist() == [1, 2, 3]


def test_fedavgm_by_hand() -> None:
    layout = layout_of(nn.Linear(1, 1, bias=False))
    model = ModelState(torch.tensor([0.0]), torch.empty(0, dtype=torch.int64))
    slots = first_slots(fedavgm(2.0, 0.5), layout)
    seen = []
    for delta in (1.0, 1.0, 0.0):
        model, slots = server_step(
            model,
            slots,
            np.array([delta], np.float32),
            model.counters_K,
            layout=layout,
            settings=fedavgm(2.0, 0.5),
        )
        seen.append((slots["momentum"].item(), model.values_F.item()))
    assert seen == [(1.0, 2.0), (1.5, 5.0), (0.75, 6.5)]


@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.9])
@pytest.mark.parametrize("lr", [1.0, 0.3])
def test_is_torch_sgd_on_the_pseudo_gradient(
    layout: Layout, base: ModelState, lr: float, momentum: float
) -> None:
    reference = nn.Parameter(base.values_F[: layout.num_trainable].clone())
    sgd = torch.optim.SGD([reference], lr=lr, momentum=momentum)
    model, slots = base, first_slots(fedavgm(lr, momentum), layout)
    for delta_F in deltas(layout, rounds=8):
        reference.grad = -torch.from_numpy(delta_F[: layout.num_trainable])
        sgd.step()
        model, slots = server_step(
            model,
            slots,
            delta_F,
            model.counters_K,
            layout=layout,
            settings=fedavgm(lr, momentum),
        )
        torch.testing.assert_close(
            model.values_F[: layout.num_trainable], reference.detach(), rtol=1e-6, atol=1e-7
        )


@pytest.mark.parametrize(("lr", "momentum"), [(1.0, 0.0), (0.1, 0.0), (0.1, 0.9)])
def test_statistics_are_averaged_untouched_by_lr_and_momentum(
    layout: Layout, base: ModelState, lr: float, momentum: float
) -> None:
    num = layout.num_trainable
    model, slots = base, first_slots(fedavgm(lr, momentum), layout)
    expected = base.values_F[num:].clone()
    for delta_F in deltas(layout, rounds=3):
        expected += torch.from_numpy(delta_F[num:])
        model, slots = server_step(
            model,
            slots,
            delta_F,
            model.counters_K,
            layout=layout,
            settings=fedavgm(lr, momentum),
        )
    assert torch.equal(model.values_F[num:], expected)
    assert all(vector_T.shape == (num,) for vector_T in slots.values())


def test_counters_are_taken_as_given(layout: Layout, base: ModelState) -> None:
    given = torch.tensor([2**53 + 1])
    zero = np.zeros(layout.num_floats, np.float32)
    new, _ = server_step(
        base,
        {},
        zero,
        given,
        layout=layout,
        settings=fedavgm(0.1, 0.0),
    )
    assert new.counters_K.dtype == torch.int64
    assert new.counters_K.tolist() == [2**53 + 1]
    given.fill_(0)
    assert new.counters_K.tolist() == [2**53 + 1]


def test_model_and_momentum_stay_and_the_delta_s_memory_is_taken_over(
    layout: Layout, base: ModelState
) -> None:
    (delta_F,) = deltas(layout, rounds=1)
    before = base.digest()
    slots: Slots = {"momentum": torch.ones(layout.num_trainable)}
    new, _ = server_step(
        base,
        slots,
        delta_F,
        base.counters_K,
        layout=layout,
        settings=fedavgm(0.5, 0.9),
    )
    assert base.digest() == before
    assert new.values_F.data_ptr() == delta_F.ctypes.data
    assert slots["momentum"].tolist() == [1.0] * layout.num_trainable


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
        mean = FixedPointMean(layout.num_floats, dict.fromkeys("abc", 1))
        for client in "abc":
            mean.add(client, delta)
        mean_delta_F = mean.finish()
        smallest = min(smallest, float(var + mean_delta_F[entry.start]))
        model = ModelState(values_F, torch.zeros(1, dtype=torch.int64))
        new, _ = server_step(
            model,
            {},
            mean_delta_F,
            model.counters_K,
            layout=layout,
            settings=fedavgm(1.0, 0.0),
        )
        assert new.values_F[entry.start] >= 0
    assert smallest < 0, "the case this test is for did not occur"


# A method is one file and one dict line


def test_an_unknown_one_is_refused_before_any_data_are_read() -> None:
    experiment = make_experiment({"federation": {"server_optimiser": "sdg"}})
    with pytest.raises(ConfigError, match=r"server optimiser.*sdg.*sgd"):
        fleetseg.run(experiment)


def test_an_extra_s_rule_may_return_what_it_was_given(layout: Layout, base: ModelState) -> None:
    whole = layout.with_extras(["control"])
    state = whole.empty()
    state.values_F.zero_()
    state.values_F[whole.spans["control"]] = 10.0
    delta_F = np.ones(whole.num_floats, np.float32)
    new, _ = server_step(
        state,
        {},
        delta_F,
        state.counters_K,
        layout=whole,
        settings=fedavgm(1.0, 0.0),
        advance_extra=lambda name, extra_T, mean_T: mean_T,
    )
    assert set(new.values_F[whole.spans["control"]].tolist()) == {1.0}
