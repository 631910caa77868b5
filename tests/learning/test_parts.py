"""Phases: what stands does not move by a bit, and what learns learns as by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from fleetseg import rng
from fleetseg.config import PhaseConfig, TrainingConfig
from fleetseg.errors import ModelError
from fleetseg.experiment_file import make_experiment
from fleetseg.learning.hardware import Hardware
from fleetseg.learning.inputs import LocalInputs, RoundContext
from fleetseg.learning.local import num_steps, train_locally
from fleetseg.learning.parts import hold_norms, only, phases
from fleetseg.learning.supervision import SUPERVISION, StepLoss, Supervision
from fleetseg.models.build import build_model, wrap

CPU = Hardware(torch.device("cpu"), "fp32")
SIZE_HW = (16, 16)
HEAD, BODY = {"learns": "head"}, {"learns": "body"}


def training(*stretches: dict[str, Any], **fields: Any) -> TrainingConfig:
    calm = {"scale": [1.0, 1.0], "flip": False, "colour_jitter": 0.0, "schedule": "constant"}
    return make_experiment(
        {"training": {**calm, "batch_size": 2, **fields, "phases": list(stretches)}}
    ).training


def pairs(count: int = 4) -> list[tuple[np.ndarray, np.ndarray]]:
    generator = np.random.Generator(np.random.Philox(count))
    return [
        (
            generator.integers(0, 256, (*SIZE_HW, 3), dtype=np.uint8),
            generator.integers(0, 3, SIZE_HW, dtype=np.uint8),
        )
        for _ in range(count)
    ]


def network(heads: tuple[str, ...] = ("3.", "4.", "5.")) -> nn.Module:
    with rng.torch_default(0, purpose="parts-test"):
        net = nn.Sequential(
            nn.Conv2d(3, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4), nn.ReLU(),
            nn.Conv2d(4, 4, 1, bias=False), nn.BatchNorm2d(4), nn.Conv2d(4, 3, 1),
        )  # fmt: skip
    return wrap(net, 3, head_prefixes=heads)


def trained(settings: TrainingConfig, model: nn.Module | None = None) -> dict[str, Tensor]:
    model = model or network()
    train_locally(model, pairs(), LocalInputs(RoundContext(0, 1, 1, "car"), settings, SIZE_HW, CPU))
    assert all(parameter.requires_grad for parameter in model.parameters())
    return {key: tensor.clone() for key, tensor in model.state_dict().items()}


def changed(after: dict[str, Tensor], before: dict[str, Tensor]) -> set[str]:
    return {key for key in before if not torch.equal(after[key], before[key])}


BODY_KEYS = {key for key in network().state_dict() if key[4] in "012"}
HEAD_KEYS = network().state_dict().keys() - BODY_KEYS


@given(
    shares=st.lists(st.floats(0.01, 100), min_size=1, max_size=5),
    more=st.integers(0, 50),
)
def test_phases_fill_a_round_and_each_has_a_step(shares: list[float], more: int) -> None:
    settings = TrainingConfig(phases=tuple(PhaseConfig(share=share) for share in shares))
    steps = len(shares) + more
    lengths = [length for _, length in phases(settings, steps)]
    assert sum(lengths) == steps
    assert min(lengths) >= 1


def test_shares_are_epochs_where_they_add_up_to_them() -> None:
    settings = training({**HEAD, "share": 10}, {**BODY, "share": 1}, local_epochs=11)
    assert num_steps(8, settings) == 44
    assert phases(settings, 44) == [("head", 40), ("body", 4)]


def test_a_short_round_has_a_step_of_each_phase() -> None:
    settings = training({**HEAD, "share": 10}, BODY, local_steps=1)
    assert num_steps(1, settings) == 2
    assert phases(settings, 2) == [("head", 1), ("body", 1)]


@pytest.mark.parametrize("optimiser", ["sgd", "adamw"])
@pytest.mark.parametrize(("part", "stays"), [("head", BODY_KEYS), ("body", HEAD_KEYS)])
def test_what_stands_keeps_every_bit(part: str, stays: set[str], optimiser: str) -> None:
    """Momentum, weight decay and the statistics of norm layers would move it."""
    settings = training(
        {"learns": part}, optimiser=optimiser, momentum=0.9, weight_decay=0.1, local_steps=4
    )
    before = {key: tensor.clone() for key, tensor in network().state_dict().items()}
    assert changed(trained(settings), before) == before.keys() - stays


def test_momentum_of_one_phase_does_not_move_the_next() -> None:
    """The body must stand in the head's phase, though it has been moving until then."""
    both = trained(training({**BODY, "share": 3}, {**HEAD, "share": 5}, local_steps=8))
    body = trained(training(BODY, local_steps=3))
    assert changed(both, body) & BODY_KEYS == set()
    assert changed(both, body) & HEAD_KEYS


def test_a_standing_body_is_a_fixed_function_while_the_head_learns() -> None:
    """Its norm layers take running statistics: the head sees what it will see when scored."""
    model, seen = network(), []
    model.get_submodule("net.2").register_forward_hook(lambda *given: seen.append(given[2]))
    same = [pairs(1)[0]] * 2
    context = RoundContext(0, 1, 1, "car")
    train_locally(model, same, LocalInputs(context, training(HEAD, local_steps=3), SIZE_HW, CPU))
    assert len(seen) == 3
    assert all(torch.equal(features, seen[0]) for features in seen)
    assert not seen[0].requires_grad


def test_without_phases_it_is_one_phase_of_all() -> None:
    plain, one = trained(training(local_steps=3)), trained(training({}, local_steps=3))
    assert changed(plain, one) == set()


def test_what_was_frozen_before_stays_so() -> None:
    model = network()
    model.get_parameter("net.1.bias").requires_grad_(False)
    with only(model, "head"):
        learning = {name for name, p in model.named_parameters() if p.requires_grad}
    assert learning == {name for name, _ in model.named_parameters()} & HEAD_KEYS
    assert [n for n, p in model.named_parameters() if not p.requires_grad] == ["net.1.bias"]


def test_old_gradients_are_gone_with_the_right_to_learn() -> None:
    model = network()
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    with only(model, "body"):
        with_gradient = {n for n, p in model.named_parameters() if p.grad is not None}
    assert with_gradient == {name for name, _ in model.named_parameters()} & BODY_KEYS


def test_norms_that_are_fixed_for_another_reason_stay_fixed() -> None:
    model = network().train()
    model.get_submodule("net.4").eval()
    hold_norms(model, "head")
    assert not model.get_submodule("net.4").training
    assert not model.get_submodule("net.1").training


@pytest.mark.parametrize("heads", [(), ("",)])
def test_a_network_has_to_say_what_its_head_is(heads: tuple[str, ...]) -> None:
    model = network(("9.",) if not heads else tuple(str(k) for k in range(6)))
    for part in ("head", "body"):
        with pytest.raises(ModelError, match="does not define its head"), only(model, part):
            raise AssertionError


def test_auxiliary_heads_learn_with_the_head() -> None:
    model = build_model("fast_scnn_aux", 3)
    with only(model, "head"):
        learning = {name.split(".")[1] for name, p in model.named_parameters() if p.requires_grad}
    assert learning == {"classifier", "aux"}


class Product(nn.Module):
    """Says head x body, whatever it sees."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Parameter(torch.tensor(1.0))
        self.head = nn.Parameter(torch.tensor(2.0))
        self.head_prefixes = ("head",)


def _to_three(inputs: LocalInputs) -> StepLoss:
    def loss(model: Any, images: Tensor, labels: Tensor) -> Tensor:
        error: Tensor = model.head * model.body - 3
        return error.square() / 2

    return loss


def test_fedrep_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two steps of the head on the body 1, then one of the body under the head 2.19."""
    monkeypatch.setitem(SUPERVISION, "to three", Supervision(_to_three))
    settings = training(
        {**HEAD, "share": 2}, BODY,
        supervision="to three", local_steps=3, lr=0.1, momentum=0.0, weight_decay=0.0,
    )  # fmt: skip
    after = trained(settings, Product())
    head = 2 - 0.1 * (2 * 1 - 3) * 1  # 2.1
    head = head - 0.1 * (head * 1 - 3) * 1  # 2.19
    body = 1 - 0.1 * (head * 1 - 3) * head
    assert after["head"].item() == pytest.approx(2.19)
    assert after["body"].item() == pytest.approx(body) == pytest.approx(1.17739)
