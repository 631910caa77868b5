"""A second pass over a batch: same draws, statistics moved once, parameters back bit for bit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from tests.learning.test_scaling import FULL, HALF, Steep, network, steepness, train, weights
from torch import Tensor, nn

from fleetseg import rng
from fleetseg.learning import local
from fleetseg.learning.objectives import OBJECTIVES, Objective
from fleetseg.learning.parameters import Trainables
from fleetseg.learning.second_pass import FirstPass, second_pass
from fleetseg.models.build import wrap

__all__ = ["steepness"]  # a fixture

Perturb = Callable[[Any, Trainables], None]


class Counting(nn.Module):
    """Counts in a buffer that it replaces, and shows the count to whatever comes after it."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64))

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.seen = self.seen + 1
        return x * self.seen.float().cos()


def drawing_net() -> nn.Module:
    with rng.torch_default(0, purpose="second-pass"):
        return wrap(
            nn.Sequential(
                nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), Counting(), nn.Dropout(0.5),
                nn.Conv2d(6, 2, 1),
            ),
            2,
        )  # fmt: skip


@pytest.fixture
def objective(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Make "plain" an objective with a second pass."""
    return lambda **hooks: monkeypatch.setitem(OBJECTIVES, "plain", Objective(**hooks))


@torch.no_grad()
def shake(memo: object, shared: Trainables) -> None:
    for parameter in shared.parameters:
        parameter.mul_(1.7).add_(0.3)


def state_of(model: nn.Module) -> dict[str, Tensor]:
    return {key: value.clone() for key, value in model.state_dict().items()}


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


@pytest.mark.parametrize("optimiser", ["sgd", "adamw"])
@pytest.mark.parametrize("clip", [0.0, 0.01])
def test_a_second_pass_from_the_same_point_is_the_first(
    optimiser: str, clip: float, objective: Callable[..., None]
) -> None:
    """Draws, batch statistics, counters and the step itself: the bits of plain training."""
    once, twice = drawing_net(), drawing_net()
    fields = {"optimiser": optimiser, "clip_grad_norm": clip, "local_steps": 5}
    first = train(once, FULL, **fields)
    objective(perturb=lambda memo, shared: None)
    second = train(twice, FULL, **fields)
    assert same(state_of(once), state_of(twice))
    assert first.loss == second.loss
    assert twice.net[1].num_batches_tracked == 5
    assert twice.net[2].seen == 5


def test_what_a_shaken_pass_leaves_is_nothing_but_its_gradients() -> None:
    model = drawing_net().train()
    images_NCHW = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    with rng.torch_default(3):
        first = FirstPass.of(model)
        once = model(images_NCHW)[0]
        after, ahead = state_of(model), torch.default_generator.get_state()
        with second_pass(model, first):
            again = model(images_NCHW)[0]
        assert torch.equal(once, again)
        assert torch.equal(torch.default_generator.get_state(), ahead)
        with second_pass(model, first):
            shake(None, Trainables([*model.parameters()]))
            assert not torch.equal(model(images_NCHW)[0], once)
    assert same(state_of(model), after)
    assert model.net[1].num_batches_tracked == 1
    assert model.net[2].seen == 1


def test_a_network_without_buffers() -> None:
    network = nn.Conv2d(3, 2, 1)
    before = state_of(network)
    with second_pass(network, FirstPass.of(network)):
        shake(None, Trainables([*network.parameters()]))
    assert same(state_of(network), before)


def test_a_pass_that_fails_puts_everything_back() -> None:
    model = drawing_net().train()
    first, before = FirstPass.of(model), state_of(model)

    def fail() -> None:
        with second_pass(model, first):
            shake(None, Trainables([*model.parameters()]))
            model(torch.rand(2, 3, 8, 8))
            raise RuntimeError("power")

    with pytest.raises(RuntimeError, match="power"):
        fail()
    assert same(state_of(model), before)


def test_a_correction_sees_parameters_that_are_back_and_the_second_gradients(
    objective: Callable[..., None],
) -> None:
    seen: list[tuple[Tensor, Tensor]] = []

    def note(memo: object, shared: Trainables) -> None:
        gradients = torch.cat([p.grad.flatten() for p in shared.parameters if p.grad is not None])
        seen.append((shared.values(), gradients))

    def perturb(memo: object, shared: Trainables) -> None:
        note(memo, shared)
        shake(memo, shared)

    objective(perturb=perturb, correct=note)
    train(drawing_net(), FULL, local_steps=1)
    (start_T, first_T), (back_T, second_T) = seen
    assert torch.equal(start_T, back_T)
    assert not torch.equal(first_T, second_T)


def test_gradients_are_unscaled_before_they_perturb(objective: Callable[..., None]) -> None:
    """LADD adds FedProx to gradients that AMP has scaled; a perturbation would be 4096 x as far."""
    norms: dict[str, list[float]] = {"fp16": [], "fp32": []}

    def perturb(memo: object, shared: Trainables) -> None:
        gradients = [p.grad for p in shared.parameters if p.grad is not None]
        norms[hardware.precision].append(float(torch.cat([g.flatten() for g in gradients]).norm()))

    objective(perturb=perturb)
    for hardware in (HALF, FULL):
        train(network(), hardware, local_steps=1)
    assert norms["fp16"] == pytest.approx(norms["fp32"], rel=5e-3)


def test_an_overflow_costs_no_step(steepness: Any, objective: Callable[..., None]) -> None:
    steepness(8192.0)
    objective(perturb=shake)
    model = network()
    result = train(model, kept={})
    assert (result.num_steps, result.skipped_steps) == (2, 0)
    assert model.net.norm.num_batches_tracked == 2


@pytest.mark.parametrize("bad_pass", [1, 2])
def test_gradients_that_are_finite_at_no_scale_skip_the_step(
    bad_pass: int, steepness: Any, objective: Callable[..., None]
) -> None:
    def perturb(memo: object, shared: Trainables) -> None:
        shake(memo, shared)
        steepness(float("nan"))

    steepness(float("nan") if bad_pass == 1 else 1.0)
    objective(perturb=perturb)
    model = network()
    start = weights(model)
    result = train(model, kept={}, local_steps=1)
    assert (result.num_steps, result.skipped_steps) == (0, 1)
    assert torch.equal(weights(model), start)
    assert model.net.norm.num_batches_tracked == 1


@pytest.mark.parametrize("hardware", [HALF, FULL], ids=["fp16", "fp32"])
def test_one_graph_at_a_time(
    hardware: Any, monkeypatch: pytest.MonkeyPatch, objective: Callable[..., None]
) -> None:
    """Two passes take the time of two, not the memory."""
    alive: list[int] = []
    count = 0

    class Token:
        def __init__(self) -> None:
            nonlocal count
            count += 1

        def __del__(self) -> None:
            nonlocal count
            count -= 1

    def forward(ctx: Any, x: Tensor) -> Tensor:
        alive.append(count)
        ctx.token = Token()
        return x.clone()

    monkeypatch.setattr(Steep, "forward", staticmethod(forward))
    objective(perturb=shake)
    train(network(), hardware, local_steps=2)
    assert alive == [0, 0, 0, 0]


def test_who_has_no_second_pass_copies_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("a copy was made")

    monkeypatch.setattr(local, "FirstPass", refuse)
    monkeypatch.setattr(local, "second_pass", refuse)
    assert train(network(), FULL).num_steps == 2


def test_a_batch_without_a_label_is_passed_through_no_more(
    objective: Callable[..., None],
) -> None:
    passes: list[int] = []
    objective(perturb=lambda memo, shared: passes.append(1))
    unlabelled = [(np.zeros((8, 8, 3), np.uint8), np.full((8, 8), 255, np.uint8))] * 2
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tests.learning.test_scaling.pairs", lambda: unlabelled)
        assert train(network(), FULL).num_steps == 0
    assert passes == []
