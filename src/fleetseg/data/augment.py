"""Joint transforms of image and label: weather, random scale, crop, flip and colour jitter.

Weather, if there is any, comes first: it goes by the whole image, and has a generator of its own.
All other numbers of a sample are drawn before anything is done with them, and always as many of
them, so that one sample's transform does not depend on which options are on or how others turned
out. Image and label are sampled with one geometry (half-pixel centres): bilinear, antialiased where
it shrinks, and nearest. Windows and targets are whole pixels, so the true scale of an axis is the
ratio of two integers next to the drawn one; only the window is ever resampled.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from fleetseg.config import TrainingConfig, WeatherConfig
from fleetseg.data.labels import IGNORE
from fleetseg.data.published_crop import unfiltered_crop
from fleetseg.data.sample import Image_HWC, Label_HW
from fleetseg.data.weather.kinds import with_weather

_GREY = 127
_LUMA_3 = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601, as in PIL and torchvision
Pair = tuple[Image_HWC, Label_HW]


@dataclass(frozen=True)
class Augment:
    """What may happen to a sample on its way into a batch; all sizes are (height, width)."""

    crop_hw: tuple[int, int]
    scale: tuple[float, float] = (1.0, 1.0)
    flip: bool = False
    colour_jitter: float = 0.0
    unfiltered: bool = False  # as published code crops: see data.published_crop
    weather: WeatherConfig = field(default_factory=WeatherConfig)

    @classmethod
    def from_config(cls, training: TrainingConfig, size_hw: tuple[int, int]) -> Augment:
        """Read the transform of an experiment; without a crop it is the working size."""
        return cls(
            training.crop or size_hw,
            training.scale,
            training.flip,
            training.colour_jitter,
            training.habits.unfiltered_crop,
            training.weather,
        )

    def draw(self, count: int, generator: np.random.Generator) -> npt.NDArray[np.float64]:
        """Draw the numbers of a batch: a row for each sample, shape (count, 8)."""
        return generator.random((count, 8))

    def write(
        self,
        pair: Pair,
        numbers_8: npt.NDArray[np.float64],
        image_HWC: Image_HWC,
        weather: np.random.Generator | None = None,
    ) -> Label_HW:
        """Transform a sample: its image into `image_HWC`, a writable array of the crop's size.

        All stays uint8: what follows from it can be worked out wherever the batch is going. The
        label that is returned may be a view in any memory order. Without a generator of its own
        there is no weather.
        """
        if weather is not None:
            pair = (with_weather(pair[0], self.weather, weather), pair[1])
        scale_draw, top, left, flip, *jitter = numbers_8.tolist()
        scale = self.scale[0] + (self.scale[1] - self.scale[0]) * scale_draw
        if self.unfiltered:
            pair = unfiltered_crop(*pair, self.crop_hw, scale, (top, left))
            scale = 1.0  # the pair is the crop
        rows = _cut(pair[1].shape[0], self.crop_hw[0], scale, top)
        columns = _cut(pair[1].shape[1], self.crop_hw[1], scale, left)
        source_HWC, label_HW = _resample(*pair, rows, columns)
        if self.colour_jitter > 0:
            source_HWC = _jitter(source_HWC, self.colour_jitter, jitter[:3])
        _lay(source_HWC, image_HWC, _GREY, rows.offset, columns.offset)
        if label_HW.shape != self.crop_hw:
            ground_HW = np.empty(self.crop_hw, np.uint8)
            _lay(label_HW, ground_HW, IGNORE, rows.offset, columns.offset)
            label_HW = ground_HW
        if self.flip and flip < 0.5:
            _mirror(image_HWC)
            label_HW = label_HW[:, ::-1]
        return label_HW

    def batch(self, pairs: Sequence[Pair], generator: np.random.Generator) -> tuple[Tensor, Tensor]:
        """Transform samples into (images_NCHW float32 in [0, 1], labels_NHW uint8).

        Images are channels-last in memory.
        """
        images_NHWC = np.empty((len(pairs), *self.crop_hw, 3), np.uint8)
        numbers_N8 = self.draw(len(pairs), generator)
        ones = zip(pairs, numbers_N8, images_NHWC, strict=True)
        labels_NHW = stacked([self.write(*one) for one in ones])
        return _floats(images_NHWC), labels_NHW


def to_batch(pairs: Sequence[Pair]) -> tuple[Tensor, Tensor]:
    """Stack samples of one size untouched, as `Augment.batch` returns them."""
    floats_NCHW = _floats(np.stack([image for image, _ in pairs]))
    return floats_NCHW, stacked([label for _, label in pairs])


def stacked(labels: Sequence[Label_HW]) -> Tensor:
    """Stack labels to labels_NHW, in the memory order that they have if they agree in it.

    The last bits of a sum over them depend on that order.
    """
    return torch.from_numpy(np.stack(labels))


def write_floats(image_HWC: Image_HWC, floats_HWC: npt.NDArray[np.float32]) -> None:
    """Write 0 to 255 as 0 to 1: the nearest float32 to each of them."""
    np.divide(image_HWC, np.float32(255), out=floats_HWC, dtype=np.float32)


def _floats(images_NHWC: npt.NDArray[np.uint8]) -> Tensor:
    """Turn uint8 images into images_NCHW float32 in [0, 1], channels-last in memory."""
    floats_NHWC = torch.empty(images_NHWC.shape)
    write_floats(images_NHWC, floats_NHWC.numpy())
    return floats_NHWC.permute(0, 3, 1, 2)


@dataclass(frozen=True, slots=True)
class _Cut:
    """One axis of a crop: source pixels start .. start + length become `size` at `offset`."""

    start: int
    length: int
    size: int
    offset: int  # of the picture inside the crop, where it is smaller


def _cut(size: int, crop: int, scale: float, place: float) -> _Cut:
    """Choose the source window that fills the crop, or the whole axis where that is too short."""
    window = max(1, round(crop / scale))
    if window <= size:
        return _Cut(int(place * (size - window + 1)), window, crop, 0)
    scaled = min(crop, max(1, round(size * scale)))
    return _Cut(0, size, scaled, int(place * (crop - scaled + 1)))


def _resample(image_HWC: Image_HWC, label_HW: Label_HW, rows: _Cut, columns: _Cut) -> Pair:
    """Take the window out of image and label and resize it."""
    window = np.s_[
        rows.start : rows.start + rows.length, columns.start : columns.start + columns.length
    ]
    image_HWC, label_HW = image_HWC[window], label_HW[window]
    if (rows.length, columns.length) == (rows.size, columns.size):
        return image_HWC, label_HW
    # torch has a vector path for channels-last uint8, which a batch of one has by its strides only:
    # permuted after the batch's axis is there. 0.6 ms for 512x1024, PIL takes 5 times as long.
    # The copy makes the window dense, and writable, which torch wants of every array.
    window_NCHW = torch.from_numpy(image_HWC.copy()).unsqueeze(0).permute(0, 3, 1, 2)
    resized_NCHW = functional.interpolate(
        window_NCHW, (rows.size, columns.size), mode="bilinear", antialias=True
    )
    image = resized_NCHW[0].permute(1, 2, 0).numpy()
    return image, label_HW[_nearest(rows)][:, _nearest(columns)]


def _nearest(cut: _Cut) -> npt.NDArray[np.intp]:
    """Window index under each target pixel's centre: floor((i + 1/2) length / size)."""
    return (2 * np.arange(cut.size) + 1) * cut.length // (2 * cut.size)


def _lay(
    picture: npt.NDArray[np.uint8],
    ground: npt.NDArray[np.uint8],
    fill: int,
    top: int,
    left: int,
) -> None:
    """Lay a picture, or a label map, on ground that it may not cover."""
    height, width = picture.shape[:2]
    if picture.shape != ground.shape:
        ground[:] = fill
    ground[top : top + height, left : left + width] = picture


def _mirror(picture: npt.NDArray[np.uint8]) -> None:
    """Swap left and right in place; numpy takes ten times as long over three bytes a pixel."""
    there = torch.from_numpy(picture)
    there.copy_(there.flip(1))


def _jitter(image_HWC: Image_HWC, strength: float, draws_3: Sequence[float]) -> Image_HWC:
    """Change brightness, contrast and saturation by factors in 1 +- strength, in one matrix.

    Saturation first (towards the pixel's luma), then contrast (towards the mean luma), then
    brightness. Each is affine in RGB, so their product is one 3x3 matrix and an offset, clipped
    and rounded once.
    """
    brightness, contrast, saturation = (1 + strength * (2 * draw - 1) for draw in draws_3)
    some_3P = image_HWC[::4, ::4].transpose(2, 0, 1).reshape(3, -1)  # every 16th pixel is enough
    mean = float(some_3P.mean(axis=1) @ _LUMA_3)
    colour_33 = saturation * np.eye(3) + (1 - saturation) * np.ones((3, 1)) * _LUMA_3
    offset = brightness * (1 - contrast) * mean
    rows_34 = np.column_stack([brightness * contrast * colour_33, np.full(3, offset)])
    # PIL's matrix rounds and clips as it goes, in 0.2 ms for 240x320, on one thread. A product in
    # numpy starts a thread per core, which with several workers on them is 100 times slower.
    picture = Image.fromarray(image_HWC).convert("RGB", tuple(rows_34.ravel().tolist()))
    return np.asarray(picture)
