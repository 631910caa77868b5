"""What vehicles are sent is the paper's exponential average, by the server's own step."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from fleetseg.experiment_file import make_experiment
from fleetseg.federation.server_optim import server_step
from fleetseg.federation.tensors import ModelState, layout_of
from fleetseg.methods.fedema import BETA, WINDOW

LAYOUT = layout_of(nn.Linear(1, 1, bias=False))
NO_COUNTERS = torch.empty(0, dtype=torch.int64)


def test_the_global_model_is_the_average_of_rounds() -> None:
    """e <- beta e + (1 - beta) mean with beta = 2 / (N + 1) = 1/2: 8, then 6, then 1."""
    settings = make_experiment({"method": "fedema"}).federation
    assert pytest.approx(2 / (WINDOW + 1)) == BETA == 0.5
    sent = ModelState(torch.tensor([8.0]), NO_COUNTERS)
    seen = []
    for mean in (4.0, -4.0, 3.0):
        delta_F = (torch.tensor([mean]) - sent.values_F).numpy()
        sent, _ = server_step(sent, {}, delta_F, NO_COUNTERS, layout=LAYOUT, settings=settings)
        seen.append(sent.values_F.item())
    assert seen == pytest.approx([6.0, 1.0, 2.0])


def test_a_client_s_loss_has_the_entropy_in_it() -> None:
    training = make_experiment({"method": "fedema"}).training
    assert training.loss.split("+") == ["ce", "entropy"]
    assert training.entropy.weight > 0
