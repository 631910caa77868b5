"""A client sums up what norm layers see of its images, where the experiment says so."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from fleetseg.experiment_file import make_experiment
from fleetseg.federation.client import Client, LocalRuntime
from fleetseg.federation.messages import Broadcast, Enrolment, Failure, NormReport
from fleetseg.federation.sharing import Exchange
from fleetseg.federation.tasks import CLIENT_TASKS
from fleetseg.federation.tensors import layout_of, read_state
from fleetseg.learning.hardware import Hardware
from fleetseg.models.build import wrap


@pytest.mark.parametrize(
    ("settings", "answered"),
    [
        ({"statistics": "estimated"}, True),
        ({"statistics": "pooled"}, False),
        ({"sharing": "silobn"}, False),
    ],
)
def test_statistics_of_images_leave_only_where_the_experiment_says_so(
    settings: dict[str, str], answered: bool
) -> None:
    """Whatever a server asks for."""
    model = wrap(nn.Sequential(nn.Conv2d(3, 2, 1), nn.BatchNorm2d(2)), 2)
    layout = layout_of(model)
    described = make_experiment({"federation": settings})
    exchange = Exchange.of(layout, described.federation)
    start = None if exchange.shares_all else read_state(model, exchange.kept)
    hardware = Hardware(torch.device("cpu"), "fp32")
    runtime = LocalRuntime(model, exchange, described, hardware, 2, start=start)
    pairs = [(np.full((4, 4, 3), n, np.uint8), np.zeros((4, 4), np.uint8)) for n in (0, 90)]
    client = Client(Enrolment("car", 2, 32, (32, 0)), pairs)
    broadcast = Broadcast(1, exchange.to_score(read_state(model, layout)))
    reply = CLIENT_TASKS["norm_statistics"](broadcast, client, runtime)
    assert isinstance(reply, NormReport) == answered
    if isinstance(reply, NormReport):
        assert reply.sums.counts_L.tolist() == [2 * 16]
    else:
        assert isinstance(reply, Failure)
        assert reply.reason == "unasked"
