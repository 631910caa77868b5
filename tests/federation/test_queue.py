"""HyperFLAW's queue: means by hand, as its code has them, and how long it grows."""

from __future__ import annotations

from collections import deque

import numpy as np
import pytest
import torch

from fleetseg.config import FederationConfig
from fleetseg.federation.server_optim import SERVER_OPTIMISERS, Slots, first_slots, server_step
from fleetseg.federation.tensors import Layout, ModelState

QUEUE = SERVER_OPTIMISERS["queue"]


def settings(length: int) -> FederationConfig:
    given = {"server_optimiser": "queue", "queue": {"length": length}}
    return FederationConfig.model_validate(given)


def go(deltas: list[float], length: int) -> tuple[list[float], Slots]:
    """What the server's model is after each round of a model with one value, from 0."""
    model_T, slots, seen = torch.zeros(1), QUEUE.first(settings(length), 1), []
    for delta in deltas:
        model_T, slots = QUEUE.step(
            model_T, torch.tensor([float(delta)]), slots, settings(length), 1.0
        )
        seen.append(model_T.item())
    return seen, slots


def test_by_hand() -> None:
    """Queues (0), (0, 2), (2, 3): (4 + 0) / 2, (7 + 0 + 2) / 3, (7 + 2 + 3) / 3."""
    seen, slots = go([4, 5, 4], length=2)
    assert seen == [2, 3, 4]
    assert [slots["past 0"].item(), slots["past 1"].item()] == [2, 3]


def test_it_is_what_hyperflaw_does() -> None:
    """`DcServer.update_model`: the global model enters a bounded deque, then all are averaged."""
    deltas = [1.0, -3.0, 2.0, 0.5, 7.0, -1.0, 2.0, 4.0]
    past: deque[float] = deque(maxlen=5)
    model, expected = 0.0, []
    for delta in deltas:
        mean = model + delta
        past.append(model)
        model = (mean + sum(past)) / (len(past) + 1)
        expected.append(model)
    seen, slots = go(deltas, length=5)
    assert seen == pytest.approx(expected, rel=1e-6)
    assert len(slots) == 5


def test_what_is_remembered_is_copied() -> None:
    model_T = torch.tensor([1.0])
    _, slots = QUEUE.step(model_T, torch.tensor([1.0]), {}, settings(3), 1.0)
    model_T.fill_(9)
    assert slots["past 0"].tolist() == [1.0]


def test_statistics_are_those_of_the_round(layout: Layout, base: ModelState) -> None:
    num = layout.num_trainable
    new, slots = server_step(
        base,
        first_slots(settings(5), layout),
        np.ones(layout.num_floats, np.float32),
        base.counters_K,
        layout=layout,
        settings=settings(5),
    )
    torch.testing.assert_close(new.values_F[:num], base.values_F[:num] + 0.5)
    assert torch.equal(new.values_F[num:], base.values_F[num:] + 1)
    assert torch.equal(slots["past 0"], base.values_F[:num])
