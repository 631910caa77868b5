"""Which samples make up a round's batches, and making the batches ready ahead of training."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fleetseg import rng
from fleetseg.config import TrainingConfig
from fleetseg.data.ahead import done_ahead
from fleetseg.data.augment import Augment, stacked, write_floats
from fleetseg.data.sample import Image_HWC, Label_HW, Pairs
from fleetseg.data.styles import STYLES, Restyling
from fleetseg.learning.hardware import Hardware
from fleetseg.learning.inputs import LocalInputs, RoundContext

Indices = np.ndarray[tuple[int], np.dtype[np.intp]]
Numbers_N8 = npt.NDArray[np.float64]
Numbers_N4 = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Batch:
    """A step's samples on the host: images NHWC, in 0 to 1 or as bytes, labels_NHW uint8."""

    images_NHWC: Tensor
    labels_NHW: Tensor

    def images_on(self, hardware: Hardware) -> Tensor:
        """Put images_NCHW, float32 in 0 to 1 and in the device's memory order, on the device."""
        images = hardware.put(self.images_NHWC.permute(0, 3, 1, 2))
        if not images.is_floating_point():
            # A tensor of the device: by a plain number CUDA multiplies with its reciprocal, which
            # gives other bits than a CPU for half of all bytes.
            images = images.float().div_(torch.full((), 255.0, device=images.device))
        return images.contiguous(memory_format=hardware.memory_format)


def batches_per_epoch(num_images: int, batch_size: int) -> int:
    """Number of batches that an epoch is cut into; their sizes differ by at most one.

    Batches hold at most `batch_size` images. Only with batches of two, an odd number of images has
    one batch of three: BatchNorm cannot train on one image where the feature map is 1 x 1.

    >>> [batches_per_epoch(n, 4) for n in (1, 4, 5)], batches_per_epoch(3, 2)
    ([1, 1, 2], 1)
    """
    count = math.ceil(num_images / batch_size)
    alone = batch_size > 1 and num_images > 1 and num_images // count < 2
    return num_images // 2 if alone else count


def _epoch_size(num_images: int, training: TrainingConfig) -> int:
    """Number of samples of an epoch: each image once, or by FedDrive's habit twice."""
    return 2 * num_images if training.habits.doubled else num_images


def steps_per_epoch(num_images: int, training: TrainingConfig) -> int:
    """Number of batches of an epoch; by the habit `drop_last` of whole ones, but at least one."""
    num_samples = _epoch_size(num_images, training)
    if training.habits.drop_last:
        return max(1, num_samples // training.batch_size)
    return batches_per_epoch(num_samples, training.batch_size)


def images_per_epoch(num_images: int, training: TrainingConfig) -> int:
    """Number of samples that an epoch trains on; by the habit `drop_last` not all there are."""
    num_samples = _epoch_size(num_images, training)
    if not training.habits.drop_last:
        return num_samples
    return min(num_samples, steps_per_epoch(num_images, training) * training.batch_size)


def batches(num_images: int, training: TrainingConfig, context: RoundContext) -> Iterator[Indices]:
    """Yield a round's index batches, epoch after epoch without end; every epoch is shuffled anew.

    With `local_epochs`, a round starts an epoch of its own. With `local_steps`, a round goes on in
    the epoch where the client's round before would have ended, so that after any number of rounds
    no image was seen more than once more often than another. The image of a client that has only
    one is taken twice, for BatchNorm. Of doubled data, sample n + i is image i, mirrored.
    """
    num_samples, habits = _epoch_size(num_images, training), training.habits
    count = steps_per_epoch(num_images, training)
    used = images_per_epoch(num_images, training)
    epoch, start = divmod((context.round - 1) * training.local_steps, count)
    round_ = 0 if training.local_steps or habits.same_order else context.round
    while True:
        generator = rng.generator(context.seed, round_, context.client_id, f"shuffle-{epoch}")
        for part in np.array_split(generator.permutation(num_samples)[:used], count)[start:]:
            yield np.repeat(part, 2) if num_samples == 1 else part
        epoch, start = epoch + 1, 0


@contextmanager
def loaded(pairs: Pairs, steps: int, inputs: LocalInputs) -> Iterator[Iterator[Batch]]:
    """Iterate over a round's augmented batches, made ready by `hardware.loaders` threads.

    The batches are the same for any number of threads. A job is one image, not one batch, so that
    all threads work on the batch that is waited for, the first one above all.
    """
    hardware = inputs.hardware
    augment, restyling = Augment.from_config(inputs.training, inputs.size_hw), _restyling(inputs)
    maker = _Maker(pairs, augment, hardware, inputs.context, restyling)
    drawn = batches(len(pairs), inputs.training, inputs.context)
    if inputs.training.habits.doubled:
        maker = replace(maker, pairs=_Doubled(pairs))
    chosen = (
        (indices, *maker.draw(len(indices), step))
        for step, indices in zip(range(steps), drawn, strict=False)
    )
    ahead = 2 * max(inputs.training.batch_size, hardware.loaders)
    with done_ahead(maker.jobs(chosen), hardware.loaders, ahead, _one_thread) as finished:
        yield (part.batch() for part in finished if part is not None)


def _restyling(inputs: LocalInputs) -> Restyling | None:
    """Read how images take on the styles of others, if they do."""
    style = inputs.training.style
    if style.kind == "none" or style.probability == 0:
        return None
    bank = inputs.facts[STYLES]
    return Restyling.of(style, bank, inputs.size_hw, inputs.context.client_id)


def _one_thread() -> None:
    """Keep torch from starting threads of its own in a loader, which would be loaders times cores.

    It counts for the thread that calls it, and for threads that have not used torch yet.
    """
    torch.set_num_threads(1)


@dataclass(frozen=True)
class _Doubled:
    """All samples as they are, then all of them mirrored."""

    pairs: Pairs

    def __len__(self) -> int:
        return 2 * len(self.pairs)

    def __getitem__(self, index: int, /) -> tuple[Image_HWC, Label_HW]:
        image_HWC, label_HW = self.pairs[index % len(self.pairs)]
        if index < len(self.pairs):
            return image_HWC, label_HW
        return np.ascontiguousarray(image_HWC[:, ::-1]), np.ascontiguousarray(label_HW[:, ::-1])


@dataclass(frozen=True)
class _Parts:
    """A batch that is being made."""

    images_NHWC: Tensor
    labels: list[Label_HW]
    pinned_NHW: Tensor | None  # where the labels lie, if they go to a device

    @classmethod
    def empty(cls, count: int, crop_hw: tuple[int, int], hardware: Hardware) -> _Parts:
        """Take memory for so many samples; what a device reads is pinned."""
        blank_HW = np.empty(0, np.uint8)
        shape = (count, *crop_hw)
        if not hardware.takes_bytes:
            return cls(torch.empty((*shape, 3)), [blank_HW] * count, None)
        pinned_NHWC = torch.empty((*shape, 3), dtype=torch.uint8, pin_memory=True)
        pinned_NHW = torch.empty(shape, dtype=torch.uint8, pin_memory=True)
        return cls(pinned_NHWC, [*pinned_NHW.numpy()], pinned_NHW)

    def batch(self) -> Batch:
        """Return the batch once all of it is there."""
        labels_NHW = stacked(self.labels) if self.pinned_NHW is None else self.pinned_NHW
        return Batch(self.images_NHWC, labels_NHW)


@dataclass(frozen=True)
class _Maker:
    """Makes batches, each in memory of its own."""

    pairs: Pairs
    augment: Augment
    hardware: Hardware
    context: RoundContext
    restyling: Restyling | None = None  # before all else: of whole images, at the size of styles

    def draw(self, count: int, step: int) -> tuple[Numbers_N8, Numbers_N4 | None]:
        """Draw the numbers of a step's samples: of how they are augmented, and of their styles."""
        numbers_N8 = self.augment.draw(count, self.context.generator(f"augment-{step}"))
        if self.restyling is None:
            return numbers_N8, None
        return numbers_N8, self.restyling.draw(count, self.context.generator(f"style-{step}"))

    def jobs(
        self, chosen: Iterable[tuple[Indices, Numbers_N8, Numbers_N4 | None]]
    ) -> Iterator[Callable[[], _Parts | None]]:
        """Yield a job for each image; the last of a batch returns the batch's parts."""
        for step, (indices, numbers_N8, numbers_N4) in enumerate(chosen):
            parts = _Parts.empty(len(indices), self.augment.crop_hw, self.hardware)
            for place, index in enumerate(indices):
                write = partial(
                    self.augment.write,
                    numbers_8=numbers_N8[place],
                    weather=self._weather(step, place),
                )
                is_last = place == len(indices) - 1
                pair = partial(self._pair, int(index), _row(numbers_N4, place))
                yield partial(self._fill, parts, place, pair, write, is_last)

    def _pair(self, index: int, numbers_4: Numbers_N4 | None) -> tuple[Image_HWC, Label_HW]:
        """Read a sample; its image may take on another one's style, its label stays."""
        image_HWC, label_HW = self.pairs[index]
        if self.restyling is not None and numbers_4 is not None:
            image_HWC = self.restyling.restyled(image_HWC, numbers_4)
        return image_HWC, label_HW

    def _weather(self, step: int, place: int) -> np.random.Generator | None:
        """One generator for each image, so that jobs can be done by any thread."""
        if self.augment.weather.probability == 0:
            return None
        return self.context.generator(f"weather-{step}-{place}")

    def _fill(
        self,
        parts: _Parts,
        place: int,
        pair: Callable[[], tuple[Image_HWC, Label_HW]],
        write: Callable[..., Label_HW],
        is_last: bool,
    ) -> _Parts | None:
        image_HWC = parts.images_NHWC[place].numpy()
        if parts.pinned_NHW is None:
            bytes_HWC = np.empty(image_HWC.shape, np.uint8)
            parts.labels[place] = write(pair(), image_HWC=bytes_HWC)
            write_floats(bytes_HWC, image_HWC)
        else:
            parts.labels[place][:] = write(pair(), image_HWC=image_HWC)
        return parts if is_last else None


def _row(numbers_N4: Numbers_N4 | None, place: int) -> Numbers_N4 | None:
    return None if numbers_N4 is None else numbers_N4[place]
