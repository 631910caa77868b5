"""Joint transforms of image and label: weather, random scale, crop, flip and colour jitter.

Weather, if enabled, is applied first: it depends on the whole image and has its own generator. All
other random numbers of a sample are drawn up front, and always the same number of them, so that a
sample's transform depends neither on which options are on nor on the other samples. Image and label
are resampled with the same geometry (half-pixel centres): the image bilinearly, antialiased when
shrinking, the label by nearest neighbour. Source windows and targets are whole pixels, so the true
scale of an axis is the ratio of two integers near the drawn scale; only the window is resampled.
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
    """The random transform applied to each sample of a batch; all sizes are (height, width)."""

    crop_hw: tuple[int, int]
    scale: tuple[float, float] = (1.0, 1.0)
    flip: bool = False
    colour_jitter: float = 0.0
    unfiltered: bool = False  # crop as published code does: see data.published_crop
    weather: WeatherConfig = field(default_factory=WeatherConfig)

    @classmethod
    def from_config(cls, training: TrainingConfig, size_hw: tuple[int, int]) -> Augment:
        """Build the transform of an experiment; `crop` defaults to the working size."""
        return cls(
            training.crop or size_hw,
            training.scale,
            training.flip,
            training.colour_jitter,
            training.habits.unfiltered_crop,
            training.weather,
        )

    def draw(self, count: int, generator: np.random.Generator) -> npt.NDArray[np.float64]:
        """Draw the random numbers of a batch: one row per sample, shape (count, 8)."""
        return generator.random((count, 8))

    def write(
        self,
        pair: Pair,
        numbers_8: npt.NDArray[np.float64],
        image_HWC: Image_HWC,
        weather: np.random.Generator | None = None,
    ) -> Label_HW:
        """Transform a sample, writing its image to `image_HWC`, a writable array of crop size.

        Everything stays uint8; later conversions can happen wherever the batch is sent. The
        returned label may be a view in any memory order. Without a `weather` generator, no weather
        is applied.
        """
        if weather is not None:
            pair = (with_weather(pair[0], self.weather, weather), pair[1])
        scale_draw, top, left, flip, *jitter = numbers_8.tolist()
        scale = self.scale[0] + (self.scale[1] - self.scale[0]) * scale_draw
        if self.unfiltered:
            pair = unfiltered_crop(*pair, self.crop_hw, scale, (top, left))
            scale = 1.0  # the pair is already cropped
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

        The images are channels-last in memory.
        """
        images_NHWC = np.empty((len(pairs), *self.crop_hw, 3), np.uint8)
        numbers_N8 = self.draw(len(pairs), generator)
        ones = zip(pairs, numbers_N8, images_NHWC, strict=True)
        labels_NHW = stacked([self.write(*one) for one in ones])
        return _floats(images_NHWC), labels_NHW


def to_batch(pairs: Sequence[Pair]) -> tuple[Tensor, Tensor]:
    """Stack samples of equal size, untransformed, in the format that `Augment.batch` returns."""
    floats_NCHW = _floats(np.stack([image for image, _ in pairs]))
    return floats_NCHW, stacked([label for _, label in pairs])


def stacked(labels: Sequence[Label_HW]) -> Tensor:
    """Stack labels into labels_NHW, keeping their memory order if all share the same one.

    The last bits of a sum over the labels depend on that order.
    """
    return torch.from_numpy(np.stack(labels))


def write_floats(image_HWC: Image_HWC, floats_HWC: npt.NDArray[np.float32]) -> None:
    """Scale 0-255 to 0-1, each value rounded to the nearest float32."""
    np.divide(image_HWC, np.float32(255), out=floats_HWC, dtype=np.float32)


def _floats(images_NHWC: npt.NDArray[np.uint8]) -> Tensor:
    """Convert uint8 images to images_NCHW float32 in [0, 1], channels-last in memory."""
    floats_NHWC = torch.empty(images_NHWC.shape)
    write_floats(images_NHWC, floats_NHWC.numpy())
    return floats_NHWC.permute(0, 3, 1, 2)


@dataclass(frozen=True, slots=True)
class _Cut:
    """One axis of a crop: source pixels start .. start + length become `size` at `offset`."""

    start: int
    length: int
    size: int
    offset: int  # of the image inside the crop, where the image is smaller


def _cut(size: int, crop: int, scale: float, place: float) -> _Cut:
    """Choose the source window that fills the crop, or the whole axis if it is too short."""
    window = max(1, round(crop / scale))
    if window <= size:
        return _Cut(int(place * (size - window + 1)), window, crop, 0)
    scaled = min(crop, max(1, round(size * scale)))
    return _Cut(0, size, scaled, int(place * (crop - scaled + 1)))


def _resample(image_HWC: Image_HWC, label_HW: Label_HW, rows: _Cut, columns: _Cut) -> Pair:
    """Cut the window out of image and label and resize both."""
    window = np.s_[
        rows.start : rows.start + rows.length, columns.start : columns.start + columns.length
    ]
    image_HWC, label_HW = image_HWC[window], label_HW[window]
    if (rows.length, columns.length) == (rows.size, columns.size):
        return image_HWC, label_HW
    # torch has a vectorised path for channels-last uint8. It recognises a batch of one by its
    # strides only, so permute after adding the batch axis. 0.6 ms for 512x1024; PIL takes 5 times
    # as long. The copy makes the window dense and writable, as torch expects of every array.
    window_NCHW = torch.from_numpy(image_HWC.copy()).unsqueeze(0).permute(0, 3, 1, 2)
    resized_NCHW = functional.interpolate(
        window_NCHW, (rows.size, columns.size), mode="bilinear", antialias=True
    )
    image = resized_NCHW[0].permute(1, 2, 0).numpy()
    return image, label_HW[_nearest(rows)][:, _nearest(columns)]


def _nearest(cut: _Cut) -> npt.NDArray[np.intp]:
    """Return the window index at each target pixel's centre: floor((i + 1/2) length / size)."""
    return (2 * np.arange(cut.size) + 1) * cut.length // (2 * cut.size)


def _lay(
    picture: npt.NDArray[np.uint8],
    ground: npt.NDArray[np.uint8],
    fill: int,
    top: int,
    left: int,
) -> None:
    """Paste an image or a label map onto `ground`, and set the uncovered border to `fill`."""
    height, width = picture.shape[:2]
    if picture.shape != ground.shape:
        ground[:] = fill
    ground[top : top + height, left : left + width] = picture


def _mirror(picture: npt.NDArray[np.uint8]) -> None:
    """Mirror left and right in place; numpy takes ten times as long with three bytes per pixel."""
    there = torch.from_numpy(picture)
    there.copy_(there.flip(1))


def _jitter(image_HWC: Image_HWC, strength: float, draws_3: Sequence[float]) -> Image_HWC:
    """Scale brightness, contrast and saturation by factors in 1 +- strength, in one matrix.

    Saturation comes first (towards the pixel's luma), then contrast (towards the mean luma), then
    brightness. Each is affine in RGB, so their composition is one 3x3 matrix and an offset, clipped
    and rounded once.
    """
    brightness, contrast, saturation = (1 + strength * (2 * draw - 1) for draw in draws_3)
    some_3P = image_HWC[::4, ::4].transpose(2, 0, 1).reshape(3, -1)  # every 16th pixel is enough
    mean = float(some_3P.mean(axis=1) @ _LUMA_3)
    colour_33 = saturation * np.eye(3) + (1 - saturation) * np.ones((3, 1)) * _LUMA_3
    offset = brightness * (1 - contrast) * mean
    rows_34 = np.column_stack([brightness * contrast * colour_33, np.full(3, offset)])
    # PIL applies the matrix, rounds and clips in one pass: 0.2 ms for 240x320, on one thread. A
    # numpy product starts a thread per core, 100 times slower when several workers share the cores.
    picture = Image.fromarray(image_HWC).convert("RGB", tuple(rows_34.ravel().tolist()))
    return np.asarray(picture)
