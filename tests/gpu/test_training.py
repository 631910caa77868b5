"""Local training on a GPU: formats, optimisers with kept state, dropout, losses, order of sums."""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from tests.gpu.networks import CLASSES, Plain, seeded
from torch import Tensor, nn

from fleetseg import rng
from fleetseg.config import TrainingConfig
from fleetseg.data.labels import IGNORE
from fleetseg.learning.batches import Batch, loaded
from fleetseg.learning.hardware import Hardware, resolve
from fleetseg.learning.inputs import LocalInputs, RoundContext
from fleetseg.learning.local import (
    LocalResult,
    read_moments,
    restore_moments,
    train_locally,
)
from fleetseg.learning.losses import LOSSES, build_loss
from fleetseg.learning.parameters import build_optimiser
from fleetseg.models.build import build_model, wrap

DEVICE = "cuda"
CPU = Hardware(torch.device("cpu"), "fp32")
SIZE_HW = (64, 96)


def gpu(precision: str = "fp32") -> Hardware:
    return resolve(DEVICE, precision)


def pairs(count: int = 6) -> list[tuple[np.ndarray, np.ndarray]]:
    """Blocks of 8 x 8 pixels whose colour tells their class, with some noise."""
    generator = rng.generator(0, purpose="gpu-pairs")
    colours_C3 = generator.integers(0, 256, (CLASSES, 3))
    made = []
    for _ in range(count):
        blocks = generator.integers(0, CLASSES, (SIZE_HW[0] // 8, SIZE_HW[1] // 8))
        label = blocks.repeat(8, axis=0).repeat(8, axis=1)
        image = colours_C3[label] + generator.integers(-20, 21, (*SIZE_HW, 3))
        made.append((image.clip(0, 255).astype(np.uint8), label.astype(np.uint8)))
    return made


def train(
    model: nn.Module,
    hardware: Hardware,
    *,
    round_: int = 1,
    kept: dict[str, Tensor] | None = None,
    **training: Any,
) -> LocalResult:
    model.to(hardware.device).to(memory_format=hardware.memory_format)
    settings = {"batch_size": 3, "scale": (1, 1), "lr": 0.02, "schedule": "constant", **training}
    return train_locally(
        model,
        pairs(),
        LocalInputs(
            RoundContext(0, round_, 9, "car"),
            TrainingConfig(**settings),
            SIZE_HW,
            hardware,
            optimiser_state=kept,
        ),
    )


def weights(model: nn.Module) -> Tensor:
    return torch.cat([p.detach().cpu().flatten() for p in model.parameters()])


def small(dropout: float = 0.0) -> nn.Module:
    return wrap(seeded(Plain, dropout), CLASSES)


def test_auto_is_the_format_that_this_gpu_has() -> None:
    native = torch.cuda.is_bf16_supported(including_emulation=False)
    assert gpu("auto").precision == ("bf16" if native else "fp16")


@pytest.mark.parametrize(
    ("precision", "least"), [("fp32", 0.9999), ("bf16", 0.998), ("fp16", 0.999)]
)
def test_training_goes_where_it_goes_on_a_cpu(precision: str, least: float) -> None:
    """The change of the weights over two epochs: its direction, and its length."""
    start = weights(small())
    changes = []
    for hardware in (CPU, gpu(precision)):
        model = small()
        result = train(model, hardware, local_epochs=2)
        assert (result.num_steps, result.skipped_steps) == (4, 0)
        changes.append(weights(model) - start)
    theirs, ours = changes
    assert float(nn.functional.cosine_similarity(ours, theirs, dim=0)) > least
    assert float(ours.norm() / theirs.norm()) == pytest.approx(1, abs=2 * (1 - least) ** 0.5)


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("optimiser", ["sgd", "adamw"])
def test_a_second_round_goes_on_with_kept_state(optimiser: str, precision: str) -> None:
    model, lr = small(), {"sgd": 0.02, "adamw": 1e-3}[optimiser]
    kept: dict[str, Tensor] = {}
    losses = []
    for round_ in (1, 2, 3):
        result = train(model, gpu(precision), round_=round_, kept=kept, optimiser=optimiser, lr=lr)
        kept = dict(result.optimiser_state)
        assert result.num_steps == 2
        assert all(value.device.type == "cpu" for value in kept.values())
        losses.append(result.loss)
    assert losses[-1] < losses[0]
    assert ("loss_scale" in kept) == (precision == "fp16")
    if optimiser == "adamw":
        assert kept["0/step"].item() == 6


@pytest.mark.parametrize("optimiser", ["sgd", "adamw"])
def test_moments_survive_the_way_to_the_host(optimiser: str) -> None:
    """Rounds with kept moments equal steps of one optimiser that was never put away."""
    training = TrainingConfig(optimiser=optimiser, lr=0.1)
    device = gpu().device
    whole, parted = (small().to(device).to(memory_format=torch.channels_last) for _ in range(2))
    one = build_optimiser(whole, training)
    moments: dict[str, Tensor] = {}
    for step in range(3):
        other = build_optimiser(parted, training)
        restore_moments(other, moments)
        for model, opt in ((whole, one), (parted, other)):
            for i, parameter in enumerate(model.parameters()):
                parameter.grad = torch.full_like(parameter, 0.1 * (step + i + 1))
            opt.step()
        moments = read_moments(other)
    assert torch.equal(weights(whole), weights(parted))


def test_dropout_is_repeatable_and_the_caller_s_draws_are_untouched() -> None:
    before = torch.cuda.get_rng_state()
    first, second, other = small(0.5), small(0.5), small(0.5)
    train(first, gpu())
    torch.rand(7, device=DEVICE)  # must not matter
    moved = torch.cuda.get_rng_state()
    train(second, gpu())
    train(other, gpu(), round_=2)
    assert torch.equal(weights(first), weights(second))
    assert not torch.equal(weights(first), weights(other))
    assert torch.equal(torch.cuda.get_rng_state(), moved)
    assert not torch.equal(before, moved)


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_a_real_network_trains_to_the_same_bits(precision: str) -> None:
    after = []
    for _ in range(2):
        model = build_model("fast_scnn", CLASSES, seed=0)
        train(model, gpu(precision), local_epochs=2)
        after.append(weights(model))
    assert torch.equal(*after)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("name", LOSSES)
def test_losses_are_those_of_a_cpu(name: str, weighted: bool) -> None:
    generator = rng.torch_generator(0, purpose="gpu-losses")
    logits_NChw = torch.randn(2, CLASSES, 16, 24, generator=generator)
    labels_NHW = torch.randint(0, CLASSES, (2, *SIZE_HW), generator=generator, dtype=torch.uint8)
    labels_NHW[:, :9] = 255
    class_weights_C = torch.linspace(0.5, 2, CLASSES) if weighted else None
    results = []
    for device in ("cpu", DEVICE):
        logits = logits_NChw.clone().to(device).requires_grad_()
        of = None if class_weights_C is None else class_weights_C.to(device)
        loss = build_loss(TrainingConfig(loss=name), of)(logits, labels_NHW.to(device))
        loss.backward()
        assert logits.grad is not None
        results.append((loss.detach().cpu(), logits.grad.cpu()))
    for value, expected in zip(results[1], results[0], strict=True):
        torch.testing.assert_close(value, expected, rtol=2e-4, atol=2e-7)


@pytest.mark.parametrize("weighted", [False, True])
def test_a_batch_of_ignored_pixels_gives_zero_and_no_gradient(weighted: bool) -> None:
    logits_NChw = torch.randn(2, CLASSES, 16, 24, device=DEVICE).requires_grad_()
    labels_NHW = torch.full((2, *SIZE_HW), IGNORE, dtype=torch.uint8, device=DEVICE)
    class_weights_C = torch.linspace(0.5, 2, CLASSES, device=DEVICE) if weighted else None
    loss = build_loss(TrainingConfig(loss="ce"), class_weights_C)(logits_NChw, labels_NHW)
    loss.backward()  # type: ignore[no-untyped-call]
    assert loss.item() == 0
    assert logits_NChw.grad is not None
    assert not logits_NChw.grad.any()


def test_every_byte_becomes_the_float_that_a_cpu_makes_of_it() -> None:
    bytes_NHWC = torch.arange(256, dtype=torch.uint8).repeat(3, 1).T.reshape(1, 16, 16, 3)
    batch = Batch(bytes_NHWC, torch.zeros(1, 16, 16))
    assert torch.equal(batch.images_on(gpu()).cpu(), batch.images_on(CPU))


def test_batches_are_those_of_a_cpu_and_lie_in_pinned_memory() -> None:
    settings = TrainingConfig(batch_size=3, local_steps=4)
    on = {
        hardware.device.type: LocalInputs(RoundContext(0, 1, 1, "car"), settings, SIZE_HW, hardware)
        for hardware in (CPU, replace(gpu(), loaders=2))
    }
    with loaded(pairs(), 4, on["cpu"]) as expected, loaded(pairs(), 4, on[DEVICE]) as made:
        for ours, theirs in zip(made, expected, strict=True):
            assert ours.images_NHWC.is_pinned()
            assert ours.labels_NHW.is_pinned()
            images_NCHW = ours.images_on(on[DEVICE].hardware)
            assert images_NCHW.is_contiguous(memory_format=torch.channels_last)
            assert torch.equal(images_NCHW.cpu(), theirs.images_on(CPU))
            assert torch.equal(ours.labels_NHW, theirs.labels_NHW)


@pytest.mark.parametrize("loaders", [1, 4])
def test_loaders_change_no_bit(loaders: int) -> None:
    after = []
    for count in (0, loaders):
        model = build_model("fast_scnn", CLASSES, seed=0)
        train(model, replace(gpu("auto"), loaders=count), local_steps=12)
        after.append(weights(model))
    assert torch.equal(*after)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_no_step_waits_for_the_gpu(precision: str) -> None:
    """What a round waits for, at its end, is as much after two steps as after eight."""

    def waits(steps: int) -> int:
        model = build_model("fast_scnn", CLASSES, seed=0).to(DEVICE)
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            torch.cuda.set_sync_debug_mode("warn")
            try:
                train(model, replace(gpu(precision), loaders=2), local_steps=steps)
            finally:
                torch.cuda.set_sync_debug_mode("default")
        return sum("synchroniz" in str(warning.message) for warning in told)

    waits(1)  # what is set up once
    assert waits(2) == waits(8)


def test_a_peak_in_memory_is_one_batch_s() -> None:
    """The graph that fp16 keeps for another backward pass is gone before the next batch."""
    peaks = []
    for steps in (1, 4):
        model = build_model("fast_scnn", CLASSES, seed=0)
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        train(model, gpu("fp16"), local_steps=steps, crop=(512, 512))
        peaks.append(torch.cuda.max_memory_allocated())
    assert peaks[1] < 1.4 * peaks[0]
