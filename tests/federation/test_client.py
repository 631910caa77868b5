"""A client's work: what becomes of a round without a step."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from fleetseg.experiment_file import make_experiment
from fleetseg.federation import client as client_module
from fleetseg.federation.client import Client, LocalRuntime, client_update
from fleetseg.federation.messages import Broadcast, Enrolment, Failure
from fleetseg.federation.sharing import Exchange
from fleetseg.federation.tensors import layout_of, read_state
from fleetseg.learning.hardware import Hardware
from fleetseg.learning.local import LocalResult
from fleetseg.learning.objectives import LocalCost
from fleetseg.models.build import wrap


@pytest.mark.parametrize(
    ("skipped", "reason", "detail"),
    [(0, "no-labels", "no labelled pixel"), (3, "non-finite", "finite gradients in fp16. Use")],
)
def test_a_round_without_a_step_says_why(
    skipped: int, reason: str, detail: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = wrap(nn.Conv2d(3, 2, 1), 2)
    layout = layout_of(model)
    hardware = Hardware(torch.device("cpu"), "fp32")
    runtime = LocalRuntime(model, Exchange.of(layout), make_experiment({}), hardware, 2)
    pairs = [(np.zeros((4, 4, 3), np.uint8), np.zeros((4, 4), np.uint8))]
    client = Client(Enrolment("car", 1, 16, (16, 0)), pairs)
    nothing = LocalResult(LocalCost(0, 0.0), 8, 0.0, {}, {}, {}, skipped_steps=skipped)
    monkeypatch.setattr(client_module, "train_locally", lambda *a, **k: nothing)
    reply = client_update(Broadcast(1, read_state(model, layout)), client, runtime)
    assert isinstance(reply, Failure)
    assert (reply.kind, reply.reason) == ("abstained", reason)
    assert detail in reply.detail
