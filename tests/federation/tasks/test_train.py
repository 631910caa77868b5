"""A client's work: what becomes of a round without a step."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from fleetseg.experiment_file import make_experiment
from fleetseg.federation.client import Client, LocalRuntime
from fleetseg.federation.cluster_parts import with_clusters
from fleetseg.federation.messages import Broadcast, Enrolment, Failure, Update
from fleetseg.federation.sharing import Exchange
from fleetseg.federation.tasks import train as train_task
from fleetseg.federation.tasks.train import client_update
from fleetseg.federation.tensors import ModelState, layout_of, read_state
from fleetseg.learning.hardware import Hardware
from fleetseg.learning.local import LocalResult
from fleetseg.learning.objectives import LocalCost
from fleetseg.models.build import wrap


def test_the_losses_that_are_asked_for_are_of_the_received_and_of_the_trained_model() -> None:
    model = wrap(nn.Conv2d(3, 2, 1), 2)
    layout = layout_of(model)
    runtime = LocalRuntime(
        model,
        Exchange.of(layout),
        make_experiment({"federation": {"weights": "feddg-ga"}, "training": {"lr": 0.1}}),
        Hardware(torch.device("cpu"), "fp32"),
        2,
    )
    pairs = [
        (np.full((4, 4, 3), 40 * k, np.uint8), np.full((4, 4), k % 2, np.uint8)) for k in range(5)
    ]
    client, received = Client(Enrolment("car", 5, 80, (48, 32)), pairs), read_state(model, layout)
    reply = client_update(Broadcast(1, received), client, runtime)
    assert isinstance(reply, Update)
    trained = ModelState(received.values_F + reply.change.values_F, received.counters_K)

    def loss_of(state: ModelState) -> float:
        runtime.whole.load(state)
        images_NCHW = torch.from_numpy(np.stack([p[0] for p in pairs])).permute(0, 3, 1, 2) / 255
        labels_NHW = torch.from_numpy(np.stack([p[1] for p in pairs])).long()
        with torch.no_grad():
            return float(nn.functional.cross_entropy(model(images_NCHW), labels_NHW))

    assert reply.measures["received_loss"] == pytest.approx(loss_of(received), rel=1e-5)
    assert reply.measures["trained_loss"] == pytest.approx(loss_of(trained), rel=1e-5)
    assert reply.measures["trained_loss"] != reply.measures["received_loss"]


def choosing(losses: list[float], monkeypatch: pytest.MonkeyPatch) -> tuple[Update, list[float]]:
    """Let a client choose of clusters whose models have these losses; returns what it saw, too.

    The k-th cluster's first weight is k.
    """
    model = wrap(nn.Conv2d(3, 2, 1), 2)
    described = make_experiment(
        {
            "federation": {"clustered_by": "loss", "cluster_models": {"count": len(losses)}},
            "training": {"lr": 1e-6},
        }
    )
    exchange = with_clusters(Exchange.of(layout_of(model)), described.federation)
    runtime = LocalRuntime(model, exchange, described, Hardware(torch.device("cpu"), "fp32"), 2)
    wire, seen = exchange.wire, list[float]()

    def loss_of(model: nn.Module, *_: object) -> float:
        seen.append(next(model.parameters()).detach().flatten()[0].item())
        return losses[len(seen) - 1]

    monkeypatch.setattr(train_task, "mean_loss", loss_of)
    sent = exchange.down.empty()
    sent.values_F.zero_()
    for k in range(len(losses)):
        sent.values_F[k * wire.num_floats] = k
    pairs = [(np.zeros((4, 4, 3), np.uint8), np.zeros((4, 4), np.uint8))]
    reply = client_update(
        Broadcast(1, sent), Client(Enrolment("car", 1, 16, (16, 0)), pairs), runtime
    )
    assert isinstance(reply, Update)
    seen.append(next(model.parameters()).detach().flatten()[0].item())
    return reply, seen


@pytest.mark.parametrize(
    ("losses", "best"),
    [
        ([0.5, 0.2, 0.9], 1),
        ([0.5, 0.2, 0.2], 1),
        ([0.3, 0.3, 0.3], 0),
        ([math.nan, 0.7, math.inf], 1),
        ([math.nan, math.inf, math.nan], 0),
    ],
    ids=str,
)
def test_a_client_trains_the_cluster_of_the_lowest_loss(
    losses: list[float], best: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of equal ones the first; all are looked at, and the chosen one is what it starts from."""
    reply, seen = choosing(losses, monkeypatch)
    assert reply.measures == {"cluster": float(best)}
    assert seen == pytest.approx([0, 1, 2, best], abs=1e-3)
    assert reply.change.values_F.abs().max() < 1e-3
    assert reply.change.values_F.numel() == 8


def test_of_a_single_cluster_no_loss_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    reply, seen = choosing([0.5], monkeypatch)
    assert reply.measures == {"cluster": 0.0}
    assert len(seen) == 1


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
    monkeypatch.setattr(train_task, "train_locally", lambda *a, **k: nothing)
    reply = client_update(Broadcast(1, read_state(model, layout)), client, runtime)
    assert isinstance(reply, Failure)
    assert (reply.kind, reply.reason) == ("abstained", reason)
    assert detail in reply.detail
