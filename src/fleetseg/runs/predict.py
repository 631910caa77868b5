"""`fleetseg.predict`: a class for every pixel of images, at each image's own resolution."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from fleetseg.data.images import ImageLike, as_rgb
from fleetseg.data.sample import Image_HWC, Label_HW
from fleetseg.data.store.decoding import resized_image
from fleetseg.errors import ConfigError
from fleetseg.evaluation.norms import Norms
from fleetseg.hosts import given_path
from fleetseg.models.segmenter import Segmenter
from fleetseg.runs.inference import ReadyModel, ready_model


def predict(
    model: Segmenter | str | Path,
    images: ImageLike | Iterable[ImageLike],
    *,
    device: str = "auto",
    precision: str = "auto",
    batch_size: int = 8,
    norms: str = "running",
    cluster: int | None = None,
) -> Iterator[Label_HW]:
    """Predict the class of every pixel; yields uint8 (H, W) for each image, in their order.

    Images are read as the maps are asked for, `batch_size` at a time: any number will do. As in a
    run, they go in at the model's working size, and the logits are resized to the image's own.

    Args:
        model: a run folder, a model folder, or what `load_model` returns.
        images: one, or any number: paths, PIL images, uint8 arrays (H, W, 3).
        device: auto, cpu, cuda or mps.
        precision: auto, fp32, bf16 or fp16.
        batch_size: images at a time, where neighbours are of one size.
        norms: statistics of batch norms: "running" (the model's own), or those of each batch,
            "batch" or "adapted"; or "banks", the model's for each condition.
        cluster: the number of a cluster of vehicles, for its model; None = the fleet's.

    Raises:
        ModelError: there is no model.
        ConfigError: this machine does not have the device or the number format; a model without
            what stayed with the clients that trained it.
        DataError: not an image, when its turn comes.
        OutOfMemory: not even one image fits.
    """
    if batch_size < 1:
        raise ConfigError("unusable batch_size", got=batch_size, expected="1 or more")
    ready = ready_to_predict(model, device, precision, Norms(norms, batch_size), cluster)
    return (map_HW for _, map_HW in predicted_pairs(ready, _read(images), batch_size))


def ready_to_predict(
    model: Segmenter | str | Path,
    device: str,
    precision: str,
    norms: Norms,
    cluster: int | None = None,
) -> ReadyModel:
    """Make a model ready for images that are read once; raises as `predict`."""
    ready = ready_model(model, device, precision, norms, cluster)
    if norms.chosen.of_domain:
        raise ConfigError(
            f"norms = '{norms.name}' looks at all images twice, and they are read once here",
            cure="Use norms = 'batch'",
        )
    if norms.chosen.learns:
        raise ConfigError(
            f"norms = '{norms.name}' learns from all that was predicted before, so that an image "
            "would be predicted otherwise alone than after others",
            cure="Use norms = 'batch' or 'adapted'; fleetseg evaluate scores with what learns",
        )
    return ready


def predicted_pairs(
    ready: ReadyModel, images: Iterable[Image_HWC], batch_size: int = 8
) -> Iterator[tuple[Image_HWC, Label_HW]]:
    """Yield each image with its predicted map, uint8 (H, W), in their order."""
    with ready.on_device():
        for batch in _batches_of_one_size(images, batch_size):
            inputs_NHWC = np.stack([resized_image(image, ready.size_hw) for image in batch])
            height, width, _ = batch[0].shape
            yield from zip(batch, ready.predict(inputs_NHWC, (height, width)), strict=True)


def _batches_of_one_size(
    images: Iterable[Image_HWC], batch_size: int
) -> Iterator[Sequence[Image_HWC]]:
    """Group neighbours of one size; the order stays."""
    batch: list[Image_HWC] = []
    for image_HWC in images:
        if batch and image_HWC.shape != batch[0].shape:
            yield batch
            batch = []
        batch.append(image_HWC)
        if len(batch) == batch_size:
            yield batch
            batch = []
    if batch:
        yield batch


def _read(images: ImageLike | Iterable[ImageLike]) -> Iterator[Image_HWC]:
    is_one = isinstance(images, str | Path | Image.Image) or (
        isinstance(images, np.ndarray) and images.ndim < 4
    )
    several: Iterable[ImageLike] = [images] if is_one else images  # type: ignore[list-item, assignment]
    for number, image in enumerate(several):
        opened = given_path(image) if isinstance(image, str | Path) else image
        yield as_rgb(opened, f"image {number}")
