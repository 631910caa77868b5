"""`fleetseg.predict`: a class for every pixel of images, at each image's own resolution."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from fleetseg.data.images import ImageLike, as_rgb
from fleetseg.data.sample import Image_HWC, Label_HW
from fleetseg.errors import ConfigError
from fleetseg.evaluation.norms import Norms
from fleetseg.hosts import given_path
from fleetseg.models.segmenter import Segmenter
from fleetseg.runs.inference import ReadyModel, ready_model
from fleetseg.runs.looks import Manner, looks, require_usable


def predict(
    model: Segmenter | str | Path,
    images: ImageLike | Iterable[ImageLike],
    *,
    device: str = "auto",
    precision: str = "auto",
    batch_size: int | None = None,
    norms: str = "running",
    cluster: int | None = None,
    tiled: bool = False,
) -> Iterator[Label_HW]:
    """Predict the class of every pixel; yields uint8 (H, W) for each image, in order.

    Images are read lazily, a batch at a time, so there may be any number of them. As in a run, they
    are resized to the model's working size, and the logits are resized to the image's own.

    Args:
        model: a run folder, a model folder, or what `load_model` returns.
        images: one, or any number: paths, PIL images, uint8 arrays (H, W, 3), uint8 tensors.
        device: auto, cpu, cuda or mps.
        precision: auto, fp32, bf16 or fp16.
        batch_size: images at a time, where consecutive ones have the same size; None = as many as
            fit in memory.
        norms: statistics of batch norms: "running" (the model's own), or those of each batch,
            "batch" or "adapted"; or "banks", the model's for each condition.
        cluster: the number of a cluster of vehicles, for its model; None = the fleet's.
        tiled: predict at each image's own resolution, in overlapping tiles of the working size.

    Raises:
        ModelError: there is no model.
        ConfigError: this machine does not have the device or the number format; the model lacks the
            parts that stayed with the clients that trained it; tiles with norms of test images.
        DataError: not an image, when its turn comes.
        OutOfMemory: not even one image fits.
    """
    manner = Manner(batch_size, tiled)
    given = Norms(norms) if batch_size is None else Norms(norms, batch_size)
    ready = ready_to_predict(model, device, precision, given, cluster)
    require_usable(ready, manner)
    return (look.map_HW for look in looks(ready, read_images(images), manner))


def ready_to_predict(
    model: Segmenter | str | Path,
    device: str,
    precision: str,
    norms: Norms,
    cluster: int | None = None,
) -> ReadyModel:
    """Make a model ready for images that are read only once; raises as `predict`."""
    return read_once(ready_model(model, device, precision, norms, cluster))


def read_once(ready: ReadyModel) -> ReadyModel:
    """Refuse norms that read an image more than once, or that learn from it.

    Raises:
        ConfigError: the model has such norms.
    """
    norms = ready.norms
    if norms.chosen.of_domain:
        raise ConfigError(
            f"norms = '{norms.name}' reads all images twice, and here they are read once",
            cure="Use norms = 'batch'",
        )
    if norms.chosen.learns:
        raise ConfigError(
            f"norms = '{norms.name}' learns from all earlier predictions, so that an image "
            "would be predicted differently alone than after others",
            cure="Use norms = 'batch' or 'adapted'; fleetseg evaluate supports norms that learn",
        )
    return ready


def is_one_image(images: ImageLike | Iterable[ImageLike]) -> bool:
    """Say whether this is a single image rather than several."""
    return isinstance(images, str | Path | Image.Image) or (
        isinstance(images, np.ndarray | torch.Tensor) and images.ndim < 4
    )


def read_images(images: ImageLike | Iterable[ImageLike]) -> Iterator[Image_HWC]:
    """Yield each of one or more images as RGB, uint8 (H, W, 3).

    Raises:
        DataError: not an image, when its turn comes.
    """
    several: Iterable[ImageLike] = [images] if is_one_image(images) else images  # type: ignore[list-item, assignment]
    if isinstance(several, bytes | Mapping) or not isinstance(several, Iterable):
        several = [several]  # type: ignore[list-item]  # to be refused as one image
    for number, image in enumerate(several):
        opened = given_path(image) if isinstance(image, str | Path) else image
        yield as_rgb(opened, f"image {number}")
