"""Batches made ready ahead of training: the same for any number of loaders, and none is left."""

from __future__ import annotations

import threading
from dataclasses import replace
from itertools import chain
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from fleetseg import rng
from fleetseg.config import TrainingConfig
from fleetseg.data.augment import Augment
from fleetseg.data.styles import STYLES, Restyling, bank_of
from fleetseg.errors import BadSample
from fleetseg.learning import batches as module
from fleetseg.learning.batches import (
    Batch,
    batches,
    images_per_epoch,
    loaded,
    steps_per_epoch,
)
from fleetseg.learning.hardware import Hardware
from fleetseg.learning.inputs import LocalInputs, RoundContext
from fleetseg.learning.local import num_steps

CPU = Hardware(torch.device("cpu"), "fp32")
LOADERS = [0, 1, 3]
SIZE_HW = (24, 32)
CONTEXT = RoundContext(seed=3, round=2, total_rounds=4, client_id="car")


class Pictures:
    """Noise of several sizes; one of them may be bad."""

    def __init__(self, count: int, bad: int = -1) -> None:
        self.count, self.bad = count, bad

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int, /) -> tuple[np.ndarray, np.ndarray]:
        if index == self.bad:
            raise BadSample("torn")
        generator = rng.generator(index, purpose="picture")
        height, width = 20 + index, 40 - index
        return (
            generator.integers(0, 256, (height, width, 3), np.uint8),
            generator.integers(0, 5, (height, width), np.uint8),
        )


def inputs(loaders: int, **training: Any) -> LocalInputs:
    settings = TrainingConfig(**{"batch_size": 4, **training})
    return LocalInputs(CONTEXT, settings, SIZE_HW, replace(CPU, loaders=loaders))


def all_of(pairs: Pictures, steps: int, given: LocalInputs) -> list[tuple[Tensor, Tensor]]:
    with loaded(pairs, steps, given) as made:
        return [(batch.images_on(given.hardware), batch.labels_NHW) for batch in made]


def threads() -> list[str]:
    return [t.name for t in threading.enumerate() if t.name.startswith("fleetseg-ahead")]


@pytest.mark.parametrize("loaders", LOADERS)
def test_batches_are_those_of_the_augmentation_step_by_step(loaders: int) -> None:
    pairs, steps, given = Pictures(10), 7, inputs(loaders)
    augment = Augment.from_config(given.training, SIZE_HW)
    order = batches(len(pairs), given.training, CONTEXT)
    made = all_of(pairs, steps, given)
    assert len(made) == steps
    for step, (images_NCHW, labels_NHW) in enumerate(made):
        chosen = [pairs[int(index)] for index in next(order)]
        expected = augment.batch(chosen, CONTEXT.generator(f"augment-{step}"))
        assert torch.equal(images_NCHW, expected[0])
        assert torch.equal(labels_NHW, expected[1])
        assert images_NCHW.is_contiguous(memory_format=torch.channels_last)
        # Sums over labels are taken in their memory order: it may not depend on the loaders.
        assert labels_NHW.stride() == expected[1].stride()


@pytest.mark.parametrize("loaders", LOADERS)
def test_a_bad_sample_is_told_in_its_turn(loaders: int) -> None:
    given, pairs = inputs(loaders, local_epochs=1), Pictures(12)
    order = [int(i) for _, part in zip(range(3), batches(12, given.training, CONTEXT), strict=False)
             for i in part]  # fmt: skip
    pairs.bad = order[5]  # in the second batch
    with loaded(pairs, 3, given) as made:
        next(made)
        with pytest.raises(BadSample, match="torn"):
            next(made)
    assert threads() == []


@pytest.mark.parametrize("loaders", LOADERS)
@pytest.mark.parametrize("stop", [KeyboardInterrupt, torch.OutOfMemoryError])
def test_no_thread_outlives_a_step_that_fails(loaders: int, stop: type[BaseException]) -> None:
    def train() -> None:
        with loaded(Pictures(8), 1000, inputs(loaders)) as made:
            next(made)
            raise stop

    with pytest.raises(stop):
        train()
    assert threads() == []


def test_loaders_leave_the_number_of_threads_of_training_alone() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        all_of(Pictures(8), 4, inputs(3))
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


class Bytes(Hardware):
    """A CPU that takes batches as CUDA does, but for the memory."""

    @property
    def takes_bytes(self) -> bool:
        """See Hardware."""
        return True


@pytest.mark.parametrize("loaders", LOADERS)
def test_batches_that_go_to_a_gpu_as_bytes_hold_the_same(
    loaders: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    empty, pinned = torch.empty, []

    def pageable(*size: Any, pin_memory: bool = False, **options: Any) -> Tensor:
        pinned.append(pin_memory)
        return empty(*size, **options)

    expected = all_of(Pictures(9), 5, inputs(0))
    monkeypatch.setattr(module.torch, "empty", pageable)
    given = replace(inputs(loaders), hardware=Bytes(CPU.device, "fp32", loaders))
    made = all_of(Pictures(9), 5, given)
    assert all(pinned[:2])
    for (images_NCHW, labels_NHW), (theirs_NCHW, theirs_NHW) in zip(made, expected, strict=True):
        assert torch.equal(images_NCHW, theirs_NCHW)
        assert torch.equal(labels_NHW, theirs_NHW)


def test_every_byte_becomes_the_float_nearest_to_its_share() -> None:
    bytes_NHWC = torch.arange(256, dtype=torch.uint8).repeat(3, 1).T.reshape(1, 16, 16, 3)
    images_NCHW = Batch(bytes_NHWC, torch.zeros(1, 16, 16)).images_on(CPU)
    expected = np.arange(256) / 255
    assert np.array_equal(images_NCHW[0, 1].flatten().numpy(), expected.astype(np.float32))


# Habits of published systems


def orders(count: int, round_: int = 2, **settings: Any) -> list[list[int]]:
    """The index batches of the first two epochs of a round."""
    training = TrainingConfig(**settings)
    drawn = batches(count, training, replace(CONTEXT, round=round_))
    number = 2 * steps_per_epoch(count, training)
    return [part.tolist() for _, part in zip(range(number), drawn, strict=False)]


@pytest.mark.parametrize(
    ("count", "sizes"), [(10, [4, 4]), (8, [4, 4]), (4, [4]), (3, [3]), (1, [2])]
)
def test_whole_batches_only_unless_there_is_no_whole_one(count: int, sizes: list[int]) -> None:
    made = orders(count, batch_size=4, habits={"drop_last": True})
    assert [len(part) for part in made] == sizes + sizes
    used = images_per_epoch(count, TrainingConfig(batch_size=4, habits={"drop_last": True}))
    assert used == min(count, sum(sizes))
    if count == 10:  # two are left over in each epoch, not the same two
        left = [set(range(10)) - {*made[k], *made[k + 1]} for k in (0, 2)]
        assert [len(two) for two in left] == [2, 2]
        assert left[0] != left[1]


def test_without_habits_no_image_is_left_over() -> None:
    assert sorted(chain.from_iterable(orders(10, batch_size=4)[:3])) == list(range(10))


def test_the_same_order_in_every_round_leaves_the_same_images_over() -> None:
    habits = {"drop_last": True, "same_order": True}
    rounds = [orders(10, round_, batch_size=4, habits=habits) for round_ in (1, 2, 9)]
    assert rounds[0] == rounds[1] == rounds[2]
    assert rounds[0][:2] != rounds[0][2:]  # its second epoch is another one
    usual = [orders(10, round_, batch_size=4, habits={"drop_last": True}) for round_ in (1, 2)]
    assert usual[0] != usual[1]


def test_doubled_data_is_each_image_and_its_mirror_once() -> None:
    doubled = {"habits": {"doubled": True}, "batch_size": 4}
    assert num_steps(6, TrainingConfig(**doubled, local_epochs=2)) == 6
    assert images_per_epoch(6, TrainingConfig(**doubled)) == 12
    assert sorted(chain.from_iterable(orders(6, **doubled)[:3])) == list(range(12))


@pytest.mark.parametrize("loaders", LOADERS)
def test_the_second_half_of_doubled_data_is_mirrored(loaders: int) -> None:
    still = {"scale": (1.0, 1.0), "flip": False, "colour_jitter": 0.0, "batch_size": 3}
    given = inputs(loaders, **still, habits={"doubled": True})

    class Uniform(Pictures):
        def __getitem__(self, index: int, /) -> tuple[np.ndarray, np.ndarray]:
            image_HWC, label_HW = Pictures.__getitem__(self, 0)
            return image_HWC[:12, :16] // 8 + 20 * index, label_HW[:12, :16] + 5 * index

    pairs = Uniform(3)
    given = replace(given, size_hw=(12, 16))
    order = batches(3, given.training, CONTEXT)
    seen = []
    for images_NCHW, labels_NHW in all_of(pairs, 2, given):
        for place, number in enumerate(next(order)):
            image_HWC, label_HW = pairs[int(number) % 3]
            if number >= 3:
                image_HWC, label_HW = image_HWC[:, ::-1], label_HW[:, ::-1]
            bytes_HWC = (images_NCHW[place].permute(1, 2, 0) * 255).round().to(torch.uint8)
            assert np.array_equal(bytes_HWC.numpy(), image_HWC)
            assert np.array_equal(labels_NHW[place].numpy(), label_HW)
            seen.append(int(number))
    assert sorted(seen) == list(range(6))


def with_styles(loaders: int, **style: Any) -> LocalInputs:
    """Inputs of a client that is told of two others, one dark and one bright."""
    dark, bright = ([[[level, 0, 0], [8, 2, 2]]] for level in (20, 80))
    told = {"dark": np.array(dark, np.float32), "bright": np.array(bright, np.float32)}
    given = inputs(loaders, style={"kind": "lab", "probability": 1.0, **style})
    return replace(given, facts={STYLES: bank_of(told, 1000)})


@pytest.mark.parametrize("loaders", LOADERS)
def test_images_take_on_styles_and_labels_do_not(loaders: int) -> None:
    """Before they are cut, turned and jittered, by draws of their own."""
    pairs, steps, given = Pictures(10), 7, with_styles(loaders)
    styles = Restyling.of(given.training.style, given.facts[STYLES], SIZE_HW)
    augment = Augment.from_config(given.training, SIZE_HW)
    order = batches(len(pairs), given.training, CONTEXT)
    plain = all_of(pairs, steps, inputs(loaders))
    for step, (images_NCHW, labels_NHW) in enumerate(all_of(pairs, steps, given)):
        chosen = [pairs[int(index)] for index in next(order)]
        numbers = styles.draw(len(chosen), CONTEXT.generator(f"style-{step}"))
        restyled = [
            (styles.restyled(image, row), label)
            for (image, label), row in zip(chosen, numbers, strict=True)
        ]
        expected = augment.batch(restyled, CONTEXT.generator(f"augment-{step}"))
        assert torch.equal(images_NCHW, expected[0])
        assert torch.equal(labels_NHW, plain[step][1])
        assert not torch.equal(images_NCHW, plain[step][0])


def test_no_style_is_no_other_batch() -> None:
    plain = all_of(Pictures(10), 7, inputs(0))
    never = all_of(Pictures(10), 7, with_styles(0, probability=0.0))
    alone = replace(with_styles(0), facts={STYLES: bank_of({}, 1000)})
    for pictures in (never, all_of(Pictures(10), 7, alone)):
        assert all(torch.equal(a[0], b[0]) for a, b in zip(plain, pictures, strict=True))


@pytest.mark.parametrize("loaders", LOADERS)
def test_weather_is_each_image_s_own_and_labels_stay(loaders: int) -> None:
    """The same in any number of threads; crop, flip and labels are those of a run without it."""
    pairs, steps = Pictures(10), 4
    plain = all_of(pairs, steps, inputs(loaders, colour_jitter=0.0))
    some = inputs(loaders, colour_jitter=0.0, weather={"probability": 0.5})
    made = all_of(pairs, steps, some)
    changed = []
    for step, (with_it, without) in enumerate(zip(made, plain, strict=True)):
        assert torch.equal(with_it[1], without[1])
        for place in range(len(with_it[0])):
            draws = CONTEXT.generator(f"weather-{step}-{place}").random(3)
            changed.append(bool(draws[0] < 0.5))
            same = torch.equal(with_it[0][place], without[0][place])
            assert same != changed[-1], "an image has weather where its own generator says so"
    assert 0 < sum(changed) < len(changed)


def test_weather_does_not_look_at_labels() -> None:
    """Poisoned labels: the images of a vehicle that must not be read by them are the same."""

    class Poisoned(Pictures):
        def __getitem__(self, index: int, /) -> tuple[np.ndarray, np.ndarray]:
            image_HWC, label_HW = Pictures.__getitem__(self, index)
            return image_HWC, np.full_like(label_HW, 255)

    given = inputs(0, weather={"probability": 1.0})
    honest, poisoned = (all_of(pairs(6), 3, given) for pairs in (Pictures, Poisoned))
    for (one, _), (other, _) in zip(honest, poisoned, strict=True):
        assert torch.equal(one, other)


def test_without_weather_no_generator_is_made_and_no_bit_moves() -> None:
    still = all_of(Pictures(8), 3, inputs(0))
    asked = all_of(Pictures(8), 3, inputs(0, weather={"probability": 0.0, "kinds": ("fog",)}))
    assert all(torch.equal(a[0], b[0]) for a, b in zip(still, asked, strict=True))
