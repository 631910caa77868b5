"""Local training: batches, moments, and that a round is a pure function of its arguments."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from fleetseg.config import TrainingConfig
from fleetseg.learning.batches import batches
from fleetseg.learning.hardware import Hardware
from fleetseg.learning.inputs import LocalInputs, RoundContext
from fleetseg.learning.local import (
    num_steps,
    read_moments,
    restore_moments,
    train_locally,
)
from fleetseg.learning.parameters import build_optimiser
from fleetseg.models.build import wrap

CPU = Hardware(torch.device("cpu"), "fp32")
SIZE_HW = (16, 16)
PLAIN = {"scale": (1.0, 1.0), "flip": False, "colour_jitter": 0.0, "schedule": "constant"}


def pairs(count: int, label: int = 1) -> list[tuple[np.ndarray, np.ndarray]]:
    generator = np.random.Generator(np.random.Philox(count))
    return [
        (
            generator.integers(0, 256, (*SIZE_HW, 3), dtype=np.uint8),
            np.full(SIZE_HW, label, dtype=np.uint8),
        )
        for _ in range(count)
    ]


def network() -> nn.Module:
    with torch.random.fork_rng():
        torch.default_generator.manual_seed(0)
        return wrap(nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4),
                                  nn.ReLU(), nn.Dropout(0.5), nn.Conv2d(4, 3, 1)), 3)  # fmt: skip


def weights_after(training: TrainingConfig, context: RoundContext, count: int = 5) -> torch.Tensor:
    model = network()
    train_locally(model, pairs(count), LocalInputs(context, training, SIZE_HW, CPU))
    return torch.cat([p.detach().flatten() for p in model.parameters()])


@given(count=st.integers(1, 40), size=st.integers(1, 9), round_=st.integers(1, 5))
def test_an_epoch_takes_every_image_once(count: int, size: int, round_: int) -> None:
    training = TrainingConfig(batch_size=size)
    steps = num_steps(count, training)
    source = batches(count, training, RoundContext(0, round_, 5, "car"))
    epoch = [next(source) for _ in range(steps)]
    taken = sorted(np.concatenate(epoch).tolist())
    assert taken == ([0, 0] if count == 1 else list(range(count)))
    assert max(map(len, epoch)) - min(map(len, epoch)) <= 1
    assert max(map(len, epoch)) <= (3 if size == 2 else max(size, 2))
    assert size == 1 or min(map(len, epoch)) >= 2  # BatchNorm cannot train on one 1 x 1 map


@given(
    count=st.integers(1, 30),
    size=st.integers(1, 7),
    steps=st.integers(1, 9),
    rounds=st.integers(1, 6),
)
def test_counted_steps_take_all_images_evenly(
    count: int, size: int, steps: int, rounds: int
) -> None:
    """A permutation runs on across rounds: no image is seen twice more often than another."""
    training = TrainingConfig(batch_size=size, local_steps=steps)
    seen_N = np.zeros(count, dtype=np.int64)
    for round_ in range(1, rounds + 1):
        source = batches(count, training, RoundContext(0, round_, rounds, "car"))
        for _ in range(steps):
            np.add.at(seen_N, next(source), 1)
    assert seen_N.max() - seen_N.min() <= 1


def test_order_differs_by_round_epoch_and_client() -> None:
    """Pitfall 10: one permutation for all rounds never sees some of the images together."""
    training = TrainingConfig(batch_size=20)

    def order(round_: int, client: str, epoch: int) -> tuple[int, ...]:
        source = batches(20, training, RoundContext(0, round_, 9, client))
        return tuple([next(source) for _ in range(epoch + 1)][-1].tolist())

    orders = [order(r, c, e) for r in (1, 2) for c in ("a", "b") for e in (0, 1)]
    assert len(set(orders)) == 8
    assert order(1, "a", 0) == order(1, "a", 0)


def test_training_is_a_pure_function_of_its_moment() -> None:
    training = TrainingConfig(batch_size=2)
    first = weights_after(training, RoundContext(0, 1, 4, "a"))
    torch.rand(7)  # moves the global generator, which must not matter
    assert torch.equal(first, weights_after(training, RoundContext(0, 1, 4, "a")))
    for other in (
        RoundContext(1, 1, 4, "a"),
        RoundContext(0, 2, 4, "a"),
        RoundContext(0, 1, 4, "b"),
    ):
        assert not torch.equal(first, weights_after(training, other))


def test_training_leaves_the_global_generator_alone() -> None:
    before = torch.default_generator.get_state()
    weights_after(TrainingConfig(batch_size=2), RoundContext(0, 1, 4, "a"))
    assert torch.equal(before, torch.default_generator.get_state())


def test_one_step_is_the_optimiser_s() -> None:
    """A single step equals torch's own SGD on the same batch, worked out by autograd."""
    training = TrainingConfig(batch_size=8, lr=0.1, weight_decay=0.0, momentum=0.0, **PLAIN)
    data = pairs(3)
    model, twin = (wrap(nn.Conv2d(3, 3, 1, bias=False), 3) for _ in range(2))
    twin.load_state_dict(model.state_dict())
    train_locally(model, data, LocalInputs(RoundContext(0, 1, 1, "c"), training, SIZE_HW, CPU))
    images = torch.stack([torch.from_numpy(i).permute(2, 0, 1).float() / 255 for i, _ in data])
    labels = torch.stack([torch.from_numpy(lab).long() for _, lab in data])
    twin.train()
    loss = nn.functional.cross_entropy(twin(images)[0], labels)
    loss.backward()
    expected = twin.net.weight - 0.1 * twin.net.weight.grad
    torch.testing.assert_close(model.net.weight, expected)


def test_learning_rate_follows_global_rounds() -> None:
    """Pitfall 9: a scheduler made anew each round never falls."""
    training = TrainingConfig(
        batch_size=8, lr=0.1, schedule="poly", scale=(1, 1), flip=False, colour_jitter=0.0
    )
    start = torch.cat([p.detach().flatten() for p in network().parameters()])
    early = (weights_after(training, RoundContext(0, 1, 10, "a")) - start).norm()
    late = (weights_after(training, RoundContext(0, 10, 10, "a")) - start).norm()
    assert late < 0.3 * early


def test_all_ignored_takes_no_step() -> None:
    model = network()
    before = torch.cat([p.detach().flatten().clone() for p in model.parameters()])
    result = train_locally(
        model,
        pairs(4, label=255),
        LocalInputs(RoundContext(0, 1, 1, "c"), TrainingConfig(batch_size=2), SIZE_HW, CPU),
    )
    assert (result.num_steps, result.images_seen, result.loss) == (0, 4, 0.0)
    assert torch.equal(before, torch.cat([p.detach().flatten() for p in model.parameters()]))


def test_one_image_trains_with_batch_norm() -> None:
    result = train_locally(
        network(),
        pairs(1),
        LocalInputs(RoundContext(0, 1, 1, "c"), TrainingConfig(batch_size=4), SIZE_HW, CPU),
    )
    assert result.num_steps == 1
    assert np.isfinite(result.loss)


@pytest.mark.parametrize("optimiser", ["sgd", "adamw"])
def test_moments_survive_the_way_to_disk(optimiser: str) -> None:
    """Two rounds with kept moments equal two steps of one optimiser that was never put away."""
    training = TrainingConfig(optimiser=optimiser, lr=0.1, momentum=0.9)
    whole, parted = network(), network()
    one = build_optimiser(whole, training)
    moments: dict[str, torch.Tensor] = {}
    for step in range(3):
        other = build_optimiser(parted, training)
        restore_moments(other, moments)
        for model, opt in ((whole, one), (parted, other)):
            opt.zero_grad()
            for i, parameter in enumerate(model.parameters()):
                parameter.grad = torch.full_like(parameter, 0.1 * (step + i + 1))
            for group in opt.param_groups:
                group["lr"] = 0.1 / (step + 1)
            opt.step()
        moments = read_moments(other)
    assert moments
    for a, b in zip(whole.parameters(), parted.parameters(), strict=True):
        assert torch.equal(a, b)


def test_fixed_norms_keep_their_statistics_and_use_them() -> None:
    """FixBN: late rounds normalise by the running statistics, exactly as at test time."""
    fixed = TrainingConfig(batch_size=8, freeze_bn_after=0.5, **PLAIN)
    early, late, free = (network() for _ in range(3))
    for model, training, round_ in (
        (early, fixed, 2),
        (late, fixed, 3),
        (free, TrainingConfig(batch_size=8, **PLAIN), 3),
    ):
        train_locally(
            model, pairs(5), LocalInputs(RoundContext(0, round_, 4, "c"), training, SIZE_HW, CPU)
        )
    norm = "net.1.running_mean"
    start = network().state_dict()[norm]
    assert torch.equal(late.state_dict()[norm], start)
    assert not torch.equal(early.state_dict()[norm], start)
    assert not torch.equal(free.state_dict()[norm], start)
    gain, bias = late.state_dict()["net.1.weight"], late.state_dict()["net.1.bias"]
    assert not torch.equal(gain, torch.ones_like(gain))
    assert not torch.equal(bias, torch.zeros_like(bias))
    # The same model in an early round again: the statistics move.
    train_locally(late, pairs(5), LocalInputs(RoundContext(0, 1, 4, "c"), fixed, SIZE_HW, CPU))
    assert not torch.equal(late.state_dict()[norm], start)


def test_a_step_with_fixed_norms_is_the_step_of_test_time() -> None:
    training = TrainingConfig(
        batch_size=8, lr=0.1, weight_decay=0.0, momentum=0.0, freeze_bn_after=0.0, **PLAIN
    )
    data = pairs(3)
    model, twin = (wrap(nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)), 3) for _ in range(2))
    model.net[1].running_mean.fill_(0.3)
    model.net[1].running_var.fill_(0.2)
    twin.load_state_dict(model.state_dict())
    train_locally(model, data, LocalInputs(RoundContext(0, 1, 1, "c"), training, SIZE_HW, CPU))
    images = torch.stack([torch.from_numpy(i).permute(2, 0, 1).float() / 255 for i, _ in data])
    labels = torch.stack([torch.from_numpy(lab).long() for _, lab in data])
    twin.eval()
    nn.functional.cross_entropy(twin(images), labels).backward()
    expected = twin.net[0].weight - 0.1 * twin.net[0].weight.grad
    torch.testing.assert_close(model.net[0].weight, expected)


def kept_moments(training: TrainingConfig) -> dict[str, torch.Tensor]:
    model = network()
    optimiser = build_optimiser(model, training)
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimiser.step()
    return read_moments(optimiser)


@pytest.mark.parametrize("optimiser", ["sgd", "adamw"])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_moments_go_where_torch_would_put_them(
    optimiser: str, memory_format: torch.memory_format
) -> None:
    """On a device without values: AdamW's step counters must be where its fused kernel is."""
    training = TrainingConfig(optimiser=optimiser, lr=0.1)
    moments = kept_moments(training)
    model = network().to("meta").to(memory_format=memory_format)
    ours, theirs = build_optimiser(model, training), build_optimiser(model, training)
    restore_moments(ours, moments)
    numbered: dict[int, dict[str, torch.Tensor]] = {}
    for key, value in moments.items():
        number, _, name = key.partition("/")
        numbered.setdefault(int(number), {})[name] = value
    theirs.load_state_dict({**theirs.state_dict(), "state": numbered})
    names = {"sgd": {"momentum_buffer"}, "adamw": {"step", "exp_avg", "exp_avg_sq"}}[optimiser]
    for parameter in model.parameters():
        assert set(ours.state[parameter]) == names
        for name, value in ours.state[parameter].items():
            expected = theirs.state[parameter][name]
            assert (value.device, value.dtype) == (expected.device, expected.dtype)
            assert value.device == parameter.device
            if name != "step":
                assert value.stride() == parameter.stride()


def test_what_was_kept_is_not_written_to() -> None:
    training = TrainingConfig(optimiser="adamw", lr=0.1)
    moments = kept_moments(training)
    before = {key: value.clone() for key, value in moments.items()}
    model = network()
    optimiser = build_optimiser(model, training)
    restore_moments(optimiser, moments)
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimiser.step()
    assert all(torch.equal(moments[key], value) for key, value in before.items())
    assert optimiser.param_groups[0]["lr"] == 0.1
