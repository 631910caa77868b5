"""Batches made ready ahead of training: the same for any number of loaders, and none is left."""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from fleetseg import rng
from fleetseg.config import TrainingConfig
from fleetseg.data.augment import Augment
from fleetseg.errors import BadSample
from fleetseg.learning import batches as module
from fleetseg.learning.batches import Batch, batches, loaded
from fleetseg.learning.hardware import Hardware
from fleetseg.learning.inputs import LocalInputs, RoundContext

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
