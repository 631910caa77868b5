"""Which model is published: the exponential average by hand, and as torch has it."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from fleetseg.config import FederationConfig
from fleetseg.federation.publishing import PUBLISHING, Vectors
from fleetseg.federation.tensors import ModelState

EMA, SWA = PUBLISHING["ema"], PUBLISHING["swa"]
NO_COUNTERS = torch.empty(0, dtype=torch.int64)


def settings(beta: float) -> FederationConfig:
    return FederationConfig.model_validate({"publishing": "ema", "ema": {"beta": beta}})


def publish(values: list[float], beta: float) -> list[float]:
    """What is published after each round of models with one value."""
    vectors: Vectors = {}
    seen = []
    for round_, value in enumerate(values, start=1):
        model = ModelState(torch.tensor([float(value)]), NO_COUNTERS)
        vectors = EMA.remember(vectors, model, round_, settings(beta))
        seen.append(EMA.model(model, vectors, settings(beta)).values_F.item())
    return seen


def test_by_hand_with_its_warm_up() -> None:
    """b is 1/10, then 2/11, 3/12: below 0.9 until the 81st average."""
    first = 0.1 * 10 + 0.9 * 20
    second = 2 / 11 * first + 9 / 11 * 0
    third = 3 / 12 * second + 9 / 12 * 8
    assert publish([10, 20, 0, 8], 0.9) == pytest.approx([10, first, second, third])


def test_the_warm_up_ends_at_beta() -> None:
    assert publish([10, 20, 0], 0.05) == pytest.approx([10, 19.5, 0.975])


def test_is_torch_s_average_once_it_is_warm() -> None:
    model = nn.Linear(1, 1, bias=False)
    reference = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.05))
    values = [1.0, -3.0, 0.5, 2.0, 8.0]
    expected = []
    for value in values:
        nn.init.constant_(model.weight, value)
        reference.update_parameters(model)
        expected.append(reference.module.weight.item())
    assert publish(values, 0.05) == pytest.approx(expected)


def test_equal_models_are_published_as_they_are() -> None:
    assert publish([0.1] * 6, 0.9) == [pytest.approx(0.1, rel=1e-6)] * 6


def test_before_the_first_round_it_is_the_model_itself() -> None:
    model = ModelState(torch.tensor([3.0]), NO_COUNTERS)
    assert EMA.model(model, {}, settings(0.9)).values_F.tolist() == [3.0]


def test_the_round_s_model_is_copied() -> None:
    model = ModelState(torch.tensor([3.0]), NO_COUNTERS)
    vectors = EMA.remember({}, model, 1, settings(0.9))
    model.values_F.fill_(7)
    assert vectors["ema"].tolist() == [3.0]


TWO = PUBLISHING["last two"]


def test_the_mean_of_the_last_two_by_hand() -> None:
    """FedExP's models may go to and fro; the first is published as it is, as its authors do."""
    vectors: Vectors = {}
    seen = []
    for round_, value in enumerate([4.0, 8.0, -2.0], start=1):
        model = ModelState(torch.tensor([value, 10 * value]), torch.tensor([round_]))
        vectors = TWO.remember(vectors, model, round_, FederationConfig())
        published = TWO.model(model, vectors, FederationConfig())
        seen.append(published.values_F.tolist())
        assert published.counters_K.tolist() == [round_]
    assert seen == [[4, 40], [6, 60], [3, 30]]
    assert len(vectors) == 2


def test_before_the_first_round_the_last_two_are_the_model_itself() -> None:
    model = ModelState(torch.tensor([3.0]), NO_COUNTERS)
    assert TWO.model(model, {}, FederationConfig()).values_F.tolist() == [3.0]


def average(values: list[float], **swa: float) -> list[float]:
    """What swa publishes after each round of models with one value."""
    fields = {"publishing": "swa", "rounds": len(values), "swa": swa}
    chosen = FederationConfig.model_validate(fields)
    vectors: Vectors = {}
    seen = []
    for round_, value in enumerate(values, start=1):
        model = ModelState(torch.tensor([float(value)]), NO_COUNTERS)
        vectors = SWA.remember(vectors, model, round_, chosen)
        seen.append(SWA.model(model, vectors, chosen).values_F.item())
    return seen


def test_swa_by_hand() -> None:
    """Of eight rounds the last half; then every second of these: 5 and 7."""
    values = [10, 20, 30, 40, 1, 2, 6, 7]
    assert average(values, start=0.5) == pytest.approx([10, 20, 30, 40, 1, 1.5, 3, 4])
    assert average(values, start=0.5, period=2) == pytest.approx([10, 20, 30, 40, 1, 1, 3.5, 3.5])
    assert average(values, start=0.99) == values
    fifty = [0.0] * 29 + [4.0] + [2.0] * 20
    assert average(fifty, start=0.58)[-1] == pytest.approx((4 + 2 * 20) / 21)  # from round 30 on


def test_swa_is_torch_s() -> None:
    model = nn.Linear(1, 1, bias=False)
    reference = AveragedModel(model)
    values = [1.0, -3.0, 0.5, 2.0, 8.0, 0.1]
    expected = []
    for value in values:
        nn.init.constant_(model.weight, value)
        reference.update_parameters(model)
        expected.append(reference.module.weight.item())
    assert average(values, start=0) == pytest.approx(expected)


@pytest.mark.parametrize("value", [0.1, 1 / 3, 1e-30, -7e8])
def test_swa_of_equal_models_is_the_model(value: float) -> None:
    assert average([value] * 30, start=0) == [torch.tensor(value).item()] * 30  # to the bit
