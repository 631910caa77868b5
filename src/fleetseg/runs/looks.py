"""Predict images one after another: their classes and, on request, the model's certainty.

Suffixes: H x W pixels at the image's own size, N images of a batch, or tiles of one, C classes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import torch
from torch import Tensor

from fleetseg.data.sample import Image_HWC, Label_HW
from fleetseg.data.store.decoding import resized_image
from fleetseg.errors import ConfigError, OutOfMemory
from fleetseg.evaluation.certainty import Certainty, Share_HW, certainty
from fleetseg.evaluation.predict import Images_NHWC, at_size
from fleetseg.evaluation.tiles import tiled_logits
from fleetseg.memory import is_out_of_memory
from fleetseg.runs.batch_size import BatchSize
from fleetseg.runs.inference import ReadyModel


@dataclass(frozen=True)
class Look:
    """One image and the model's prediction of it."""

    image_HWC: Image_HWC
    map_HW: Label_HW
    certain: dict[Certainty, Share_HW] = field(default_factory=dict)


@dataclass(frozen=True)
class Manner:
    """How images are predicted.

    Args:
        batch_size: images, or tiles, at a time; None = as many as fit in memory.
        tiled: predict at the image's own resolution, in overlapping tiles of the working size,
            instead of once as a whole at the working size.
        certain: also return maps of the model's certainty.
    """

    batch_size: int | None = None
    tiled: bool = False
    certain: bool = False


def looks(ready: ReadyModel, images: Iterable[Image_HWC], manner: Manner) -> Iterator[Look]:
    """Yield the prediction of each image, in order.

    Raises:
        ConfigError: tiles with norm statistics other than the model's own.
        OutOfMemory: not even one image, or tile, fits.
    """
    require_usable(ready, manner)
    with ready.on_device():
        size = BatchSize(ready, manner.batch_size, manner.tiled)
        if manner.tiled:
            for image_HWC in images:
                with size.measured():
                    look = _look_tiled(ready, image_HWC, size.of(image_HWC), manner.certain)
                yield look
            return
        for batch in _batches_of_one_size(images, size):
            with size.measured():
                seen = _look_at_batch(ready, batch, manner.certain)
            yield from seen


def require_usable(ready: ReadyModel, manner: Manner) -> None:
    """Refuse an unusable combination before any image is read; see `looks`."""
    if manner.batch_size is not None and manner.batch_size < 1:
        raise ConfigError("unusable batch_size", got=manner.batch_size, expected="1 or more")
    if manner.tiled and ready.norms.name != "running":
        raise ConfigError(
            f"norms = '{ready.norms.name}' are statistics of whole images, and tiles are parts",
            cure="Use norms = 'running', or no tiles",
        )


def _look_at_batch(ready: ReadyModel, batch: Sequence[Image_HWC], certain: bool) -> list[Look]:
    inputs_NHWC = np.stack([resized_image(image, ready.size_hw) for image in batch])
    height, width, _ = batch[0].shape
    if not certain:
        maps_NHW = ready.predict(inputs_NHWC, (height, width))
        return [Look(image, map_HW) for image, map_HW in zip(batch, maps_NHW, strict=True)]
    parts = ready.look(inputs_NHWC, partial(_maps, size_hw=(height, width)))
    pairs = [pair for part in parts for pair in part]
    return [Look(image, *pair) for image, pair in zip(batch, pairs, strict=True)]


def _maps(
    logits_NCHW: Tensor, size_hw: tuple[int, int]
) -> list[tuple[Label_HW, dict[Certainty, Share_HW]]]:
    maps_NHW = at_size(logits_NCHW, size_hw)
    return [
        (map_HW, certainty(logits_CHW, size_hw))
        for map_HW, logits_CHW in zip(maps_NHW, logits_NCHW, strict=True)
    ]


def _look_tiled(ready: ReadyModel, image_HWC: Image_HWC, batch_size: int, certain: bool) -> Look:
    size_hw = (image_HWC.shape[0], image_HWC.shape[1])

    def run(tiles_NHWC: Images_NHWC) -> Tensor:
        return torch.cat(ready.look(tiles_NHWC, lambda logits_NCHW: logits_NCHW))

    try:
        logits_CHW = tiled_logits(run, image_HWC, ready.size_hw, batch_size=batch_size)
        map_HW = at_size(logits_CHW[None], size_hw)[0]
        shares = certainty(logits_CHW, size_hw) if certain else {}
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise OutOfMemory(
            "out of memory: an image's logits do not fit",
            got=f"{ready.segmenter.num_classes} classes of {size_hw[0]} x {size_hw[1]} pixels",
            cure="Use no tiles, or scale the images down",
        ) from None
    return Look(image_HWC, map_HW, shares)


def _batches_of_one_size(
    images: Iterable[Image_HWC], size: BatchSize
) -> Iterator[Sequence[Image_HWC]]:
    """Group consecutive images of one size, in order."""
    batch: list[Image_HWC] = []
    for image_HWC in images:
        if batch and image_HWC.shape != batch[0].shape:
            yield batch
            batch = []
        batch.append(image_HWC)
        if len(batch) >= size.of(image_HWC):
            yield batch
            batch = []
    if batch:
        yield batch
