"""Select the samples of a round's batches, and prepare the batches ahead of training."""

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
from fleetseg.data.store.store import Pooled
from fleetseg.data.styles import STYLES, Restyling
from fleetseg.learning.hardware import Hardware
from fleetseg.learning.inputs import LocalInputs, RoundContext

Indices = np.ndarray[tuple[int], np.dtype[np.intp]]
Numbers_N8 = npt.NDArray[np.float64]
Numbers_N4 = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Batch:
    """A step's samples on the host: images NHWC, float in [0, 1] or uint8, labels_NHW uint8."""

    images_NHWC: Tensor
    labels_NHW: Tensor

    def images_on(self, hardware: Hardware) -> Tensor:
        """Return images_NCHW on the device: float32 in [0, 1], in the device's memory order."""
        images = hardware.put(self.images_NHWC.permute(0, 3, 1, 2))
        if not images.is_floating_point():
            # Divide by a tensor: given a plain number, CUDA multiplies by its reciprocal, which
            # differs in bits from a CPU for half of all byte values.
            images = images.float().div_(torch.full((), 255.0, device=images.device))
        return images.contiguous(memory_format=hardware.memory_format)


def batches_per_epoch(num_images: int, batch_size: int) -> int:
    """Return the number of batches in an epoch; their sizes differ by at most one.

    Batches hold at most `batch_size` images, with one exception: with batches of two, an odd number
    of images has one batch of three, since BatchNorm cannot train on one image if the feature map
    is 1 x 1.

    >>> [batches_per_epoch(n, 4) for n in (1, 4, 5)], batches_per_epoch(3, 2)
    ([1, 1, 2], 1)
    """
    count = math.ceil(num_images / batch_size)
    alone = batch_size > 1 and num_images > 1 and num_images // count < 2
    return num_images // 2 if alone else count


def _epoch_size(num_images: int, training: TrainingConfig) -> int:
    """Return the number of samples in an epoch: each image once, or twice with habit `doubled`."""
    return 2 * num_images if training.habits.doubled else num_images


def steps_per_epoch(num_images: int, training: TrainingConfig) -> int:
    """Return the number of batches in an epoch; with habit `drop_last` only full ones, but >= 1."""
    num_samples = _epoch_size(num_images, training)
    if training.habits.drop_last:
        return max(1, num_samples // training.batch_size)
    return batches_per_epoch(num_samples, training.batch_size)


def images_per_epoch(num_images: int, training: TrainingConfig) -> int:
    """Return the number of samples that an epoch trains on; `drop_last` omits a partial batch."""
    num_samples = _epoch_size(num_images, training)
    if not training.habits.drop_last:
        return num_samples
    return min(num_samples, steps_per_epoch(num_images, training) * training.batch_size)


def batches(num_images: int, training: TrainingConfig, context: RoundContext) -> Iterator[Indices]:
    """Yield a round's index batches, epoch after epoch without end; every epoch is reshuffled.

    With `local_epochs`, every round starts a new epoch. With `local_steps`, a round continues the
    epoch where the client's previous round would have ended, so that at any time no image has been
    seen more than once more often than another. If a client has a single image, the image is used
    twice, for BatchNorm. In doubled data, sample n + i is image i, mirrored.
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
    """Iterate over a round's augmented batches, prepared by `hardware.loaders` threads.

    The batches are the same for any number of threads. A job is one image, not one batch, so that
    all threads work on the batch needed next, in particular the first.
    """
    hardware = inputs.hardware
    augment, restyling = Augment.from_config(inputs.training, inputs.size_hw), _restyling(inputs)
    maker = _Maker(pairs, augment, hardware, inputs.context, restyling)
    drawn = batches(len(pairs), inputs.training, inputs.context)
    if inputs.training.habits.doubled:
        maker = replace(maker, pairs=_Doubled(pairs))
    if inputs.source is not None:
        drawn = _with_source(drawn, len(maker.pairs), len(inputs.source), inputs.context)
        maker = replace(maker, pairs=Pooled((maker.pairs, inputs.source)))
    chosen = (
        (indices, *maker.draw(len(indices), step))
        for step, indices in zip(range(steps), drawn, strict=False)
    )
    ahead = 2 * max(inputs.training.batch_size, hardware.loaders)
    with done_ahead(maker.jobs(chosen), hardware.loaders, ahead, _one_thread) as finished:
        yield (part.batch() for part in finished if part is not None)


def _with_source(
    drawn: Iterator[Indices], first: int, count: int, context: RoundContext
) -> Iterator[Indices]:
    """Add to each batch as many source samples, which are numbered from `first` on.

    They are drawn at random, none a second time before each of the `count` has been drawn.
    """
    draw, left = context.generator("source"), np.empty(0, np.intp)
    for own in drawn:
        while len(left) < len(own):
            left = np.concatenate([left, draw.permutation(count)])
        yield np.concatenate([own, first + left[: len(own)]])
        left = left[len(own) :]


def own_images(batch: Batch, inputs: LocalInputs) -> int:
    """Return how many images of a batch are the client's own: the first ones."""
    return len(batch.labels_NHW) // (1 if inputs.source is None else 2)


def _restyling(inputs: LocalInputs) -> Restyling | None:
    """Return how images take on the styles of other clients, if enabled."""
    style = inputs.training.style
    if style.kind == "none" or style.probability == 0:
        return None
    bank = inputs.facts[STYLES]
    return Restyling.of(style, bank, inputs.size_hw, inputs.context.client_id)


def _one_thread() -> None:
    """Keep torch from starting threads in a loader: there would be loaders times cores of them.

    Applies to the calling thread, and to threads that have not used torch yet.
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
    """A batch under construction."""

    images_NHWC: Tensor
    labels: list[Label_HW]
    pinned_NHW: Tensor | None  # holds the labels, if they go to a device

    @classmethod
    def empty(cls, count: int, crop_hw: tuple[int, int], hardware: Hardware) -> _Parts:
        """Allocate memory for `count` samples, pinned if the device reads it directly."""
        blank_HW = np.empty(0, np.uint8)
        shape = (count, *crop_hw)
        if not hardware.takes_bytes:
            return cls(torch.empty((*shape, 3)), [blank_HW] * count, None)
        pinned_NHWC = torch.empty((*shape, 3), dtype=torch.uint8, pin_memory=True)
        pinned_NHW = torch.empty(shape, dtype=torch.uint8, pin_memory=True)
        return cls(pinned_NHWC, [*pinned_NHW.numpy()], pinned_NHW)

    def batch(self) -> Batch:
        """Return the finished batch."""
        labels_NHW = stacked(self.labels) if self.pinned_NHW is None else self.pinned_NHW
        return Batch(self.images_NHWC, labels_NHW)


@dataclass(frozen=True)
class _Maker:
    """Makes batches, each in its own memory."""

    pairs: Pairs
    augment: Augment
    hardware: Hardware
    context: RoundContext
    restyling: Restyling | None = None  # applied first, to whole images at the size of styles

    def draw(self, count: int, step: int) -> tuple[Numbers_N8, Numbers_N4 | None]:
        """Draw the random numbers of a step's samples, for augmentation and for styles."""
        numbers_N8 = self.augment.draw(count, self.context.generator(f"augment-{step}"))
        if self.restyling is None:
            return numbers_N8, None
        return numbers_N8, self.restyling.draw(count, self.context.generator(f"style-{step}"))

    def jobs(
        self, chosen: Iterable[tuple[Indices, Numbers_N8, Numbers_N4 | None]]
    ) -> Iterator[Callable[[], _Parts | None]]:
        """Yield a job for each image; the last job of a batch returns the batch's parts."""
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
        """Read a sample; its image may take on another style, its label is unchanged."""
        image_HWC, label_HW = self.pairs[index]
        if self.restyling is not None and numbers_4 is not None:
            image_HWC = self.restyling.restyled(image_HWC, numbers_4)
        return image_HWC, label_HW

    def _weather(self, step: int, place: int) -> np.random.Generator | None:
        """Return a separate generator per image, so that any thread can run the job."""
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
