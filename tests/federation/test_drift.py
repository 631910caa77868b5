"""The server's step of FedDyn and FedDC: what is sent is shifted, what counts is the mean."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fleetseg.config import FederationConfig
from fleetseg.federation.server_optim import SERVER_OPTIMISERS, first_slots, server_step
from fleetseg.federation.tensors import Layout, ModelState

DRIFT = SERVER_OPTIMISERS["drift"]
SETTINGS = FederationConfig(server_optimiser="drift")


def test_by_hand() -> None:
    """Half of the fleet: h <- h + 1/2 D, w <- w + D + h."""
    slots = {"drift": torch.tensor([1.0, 0.0])}
    sent_T, after = DRIFT.step(
        torch.tensor([10.0, 20.0]), torch.tensor([2.0, -4.0]), slots, SETTINGS, 0.5
    )
    assert after["drift"].tolist() == [2.0, -2.0]
    assert sent_T.tolist() == [14.0, 14.0]
    assert DRIFT.scored is not None
    assert DRIFT.scored(sent_T, after).tolist() == [12.0, 16.0]
    assert slots["drift"].tolist() == [1.0, 0.0]


def test_it_is_the_paper_s_step() -> None:
    """s <- s - alpha (1 / N) sum (y_i - w), w <- mean y_i - s / alpha: Algorithm 1, in float64."""
    draw, alpha, num = np.random.Generator(np.random.Philox(0)), 0.03, 10
    w = s = np.zeros(5)
    model_T, slots = torch.zeros(5), first_slots_of(5)
    for count in (10, 3, 1, 4):
        ends = w + draw.standard_normal((count, 5))
        delta_T = torch.from_numpy((ends - w).mean(0)).float()
        s = s - alpha * (ends - w).sum(0) / num
        w = ends.mean(0) - s / alpha
        model_T, slots = DRIFT.step(model_T, delta_T, slots, SETTINGS, count / num)
        assert model_T.tolist() == pytest.approx(w.tolist(), abs=1e-5)
        assert DRIFT.scored is not None
        mean = ends.mean(0).tolist()
        assert DRIFT.scored(model_T, slots).tolist() == pytest.approx(mean, abs=1e-5)


def first_slots_of(size: int) -> dict[str, torch.Tensor]:
    return dict(DRIFT.first(SETTINGS, size))


def test_statistics_and_extras_are_not_shifted(layout: Layout, base: ModelState) -> None:
    whole, num = layout.with_extras(["control"]), layout.num_trainable
    state = whole.empty()
    state.values_F.zero_()
    new, slots = server_step(
        state,
        first_slots(SETTINGS, whole),
        np.ones(whole.num_floats, np.float32),
        base.counters_K,
        layout=whole,
        settings=SETTINGS,
        share=0.5,
    )
    assert set(slots["drift"].tolist()) == {0.5}
    assert set(new.values_F[:num].tolist()) == {1.5}
    assert set(new.values_F[num:].tolist()) == {1.0}
