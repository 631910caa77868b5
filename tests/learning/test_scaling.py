"""Loss scaling: no step lost to an overflow, the scale kept, the gradients those of no scaling."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fleetseg import rng
from fleetseg.config import TrainingConfig
from fleetseg.learning.hardware import Hardware
from fleetseg.learning.inputs import LocalInputs, RoundContext
from fleetseg.learning.local import LocalResult, train_locally
from fleetseg.learning.parameters import build_optimiser
from fleetseg.learning.scaling import LossScale, take_step
from fleetseg.models.build import wrap

# A CPU that computes in fp16, which no user gets: the same code as on a GPU.
HALF = Hardware(torch.device("cpu"), "fp16")
FULL = Hardware(torch.device("cpu"), "fp32")
SIZE_HW = (8, 8)


class Steep(torch.autograd.Function):
    """The identity, with a gradient of float16 that a factor may drive beyond its range."""

    factor = 1.0

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, outer: Tensor) -> Tensor:
        return (outer * Steep.factor).half().float()


class Steepened(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 2, 1)
        self.norm = nn.BatchNorm2d(2)

    def forward(self, images_NCHW: Tensor) -> Tensor:
        return Steep.apply(self.norm(self.conv(images_NCHW)))


def network() -> nn.Module:
    with rng.torch_default(0, purpose="steep"):
        return wrap(Steepened(), 2)


@pytest.fixture
def steepness(monkeypatch: pytest.MonkeyPatch) -> Any:
    return lambda factor: monkeypatch.setattr(Steep, "factor", factor)


def pairs() -> list[tuple[np.ndarray, np.ndarray]]:
    generator = rng.generator(0, purpose="pairs")
    return [
        (
            generator.integers(0, 256, (*SIZE_HW, 3), np.uint8),
            generator.integers(0, 2, SIZE_HW, np.uint8),
        )
        for _ in range(4)
    ]


def train(
    model: nn.Module,
    hardware: Hardware = HALF,
    kept: dict[str, Tensor] | None = None,
    round_: int = 1,
    **training: Any,
) -> LocalResult:
    return train_locally(
        model,
        pairs(),
        LocalInputs(
            RoundContext(0, round_, 9, "car"),
            TrainingConfig(batch_size=2, scale=(1, 1), lr=1e-3, **training),
            SIZE_HW,
            hardware,
            optimiser_state=kept,
        ),
    )


def weights(model: nn.Module) -> Tensor:
    return torch.cat([p.detach().flatten() for p in model.parameters()])


@pytest.mark.parametrize("optimiser", ["sgd", "adamw"])
@pytest.mark.parametrize("clip", [0.0, 1e-3])
def test_a_step_is_that_of_torch_s_grad_scaler(optimiser: str, clip: float) -> None:
    training = TrainingConfig(optimiser=optimiser, lr=0.1)
    one, other = network(), network()
    ours, theirs = build_optimiser(one, training), build_optimiser(other, training)
    scale, scaler = LossScale(), torch.amp.GradScaler("cpu", init_scale=LossScale().value)
    images_NCHW = torch.from_numpy(np.stack([i for i, _ in pairs()])).permute(0, 3, 1, 2) / 255
    labels_NHW = torch.from_numpy(np.stack([label for _, label in pairs()])).long()
    for _ in range(3):
        losses = []
        for model in (one, other):
            with HALF.autocast():
                logits = model(images_NCHW)[0]
            losses.append(nn.functional.cross_entropy(logits.float(), labels_NHW))
        assert take_step(one, losses[0], ours, scale, clip)
        theirs.zero_grad()
        scaler.scale(losses[1]).backward()
        scaler.unscale_(theirs)
        if clip:
            nn.utils.clip_grad_norm_(other.parameters(), clip)
        scaler.step(theirs)
        scaler.update()
        assert torch.equal(weights(one), weights(other))


def test_an_overflow_costs_no_step(steepness: Any) -> None:
    """torch's scaler would drop both batches of this round, and the vehicle with them."""
    steepness(8192.0)
    model = network()
    start, norm = weights(model), model.net.norm
    result = train(model, kept={})
    assert (result.num_steps, result.skipped_steps) == (2, 0)
    assert not torch.equal(weights(model), start)
    assert norm.num_batches_tracked == 2  # each batch was seen once
    value, good_steps = result.optimiser_state["loss_scale"].tolist()
    assert 1 <= value < LossScale().value
    assert good_steps >= 1


def test_the_scale_leaves_no_trace(steepness: Any) -> None:
    """Where float16 is exact enough, a step at any scale is the step without one."""
    model, other = network(), network()
    train(model, HALF)
    scaled = weights(model)
    steepness(1.0)
    train(other, FULL)
    torch.testing.assert_close(scaled, weights(other), rtol=2e-3, atol=2e-5)


def test_a_kept_scale_is_where_the_last_round_left_it(steepness: Any) -> None:
    steepness(8192.0)
    model = network()
    first = train(model, kept={})
    left = float(first.optimiser_state["loss_scale"][0])
    steepness(1.0)
    second = train(model, kept=dict(first.optimiser_state), round_=2)
    value, good_steps = second.optimiser_state["loss_scale"].tolist()
    assert value == left
    assert good_steps == float(first.optimiser_state["loss_scale"][1]) + 2
    assert "loss_scale" not in train(model, FULL, kept=dict(second.optimiser_state)).optimiser_state


def test_a_scale_grows_again() -> None:
    scale = LossScale.of("fp16", {"loss_scale": torch.tensor([8.0, 1999.0])})
    parameter = nn.Parameter(torch.ones(1))
    assert scale.backward((parameter * 2).sum(), [parameter], 0.0)
    assert (scale.value, scale.good_steps) == (16.0, 0)
    assert parameter.grad is not None
    assert parameter.grad.item() == 2.0


@pytest.mark.parametrize("fault", [float("inf"), float("nan")])
def test_what_is_finite_at_no_scale_is_no_step(fault: float, steepness: Any) -> None:
    steepness(fault)
    model = network()
    start = weights(model)
    result = train(model, kept={})
    assert (result.num_steps, result.skipped_steps, result.loss) == (0, 2, 0.0)
    assert torch.equal(weights(model), start)
    assert result.optimiser_state["loss_scale"].tolist() == [LossScale().value, 0.0]


def test_a_batch_s_graph_is_gone_before_the_next_forward_pass(monkeypatch: Any) -> None:
    """The graph is kept for another backward pass; two at a time would need twice the memory."""
    alive: list[int] = []
    count = 0

    class Counted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 2, 1)

        def forward(self, images_NCHW: Tensor) -> Tensor:
            alive.append(count)
            return Held.apply(self.conv(images_NCHW))

    class Token:
        def __init__(self) -> None:
            nonlocal count
            count += 1

        def __del__(self) -> None:
            nonlocal count
            count -= 1

    class Held(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            ctx.token = Token()
            return x.clone()

        @staticmethod
        def backward(ctx: Any, outer: Tensor) -> Tensor:
            return outer

    with rng.torch_default(0):
        model = wrap(Counted(), 2)
    train(model, local_steps=4)
    assert alive == [0, 0, 0, 0]
