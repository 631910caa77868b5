"""`fleetseg.load_model`: a network that also takes images as files, PIL images or arrays.

model = fleetseg.load_model("runs/camvid")
labels_HW = model.predict("street.png")
model.overlay("street.png").save("seen.png")
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn

from fleetseg.data.images import ImageLike
from fleetseg.data.sample import Label_HW
from fleetseg.evaluation.norms import Norms
from fleetseg.evaluation.overlays import overlay_with_legend
from fleetseg.evaluation.pictures import overlay
from fleetseg.hosts import given_path
from fleetseg.models import folder
from fleetseg.models.segmenter import Segmenter
from fleetseg.runs.inference import ReadyModel, ready_model
from fleetseg.runs.looks import Manner, looks, require_usable
from fleetseg.runs.predict import is_one_image, read_images, read_once


class LoadedModel(Segmenter):
    """A Segmenter that also predicts and overlays images, on the device that it is on.

    `model(images_NCHW)` is still the network; `model.to("cuda")` moves it.
    """

    def predict(
        self,
        images: ImageLike | Iterable[ImageLike],
        *,
        precision: str = "auto",
        batch_size: int | None = None,
        norms: str = "running",
        tiled: bool = False,
    ) -> Label_HW | list[Label_HW]:
        """Return the class of every pixel, uint8, at each image's own size.

        Args:
            images: one image (a path, a PIL image, a uint8 array (H, W, 3) or tensor (3, H, W)), or
                a batch: an array or tensor with one more dimension, or any iterable of images.
            precision: auto, fp32, bf16 or fp16.
            batch_size: images at a time; None = as many as fit in memory.
            norms: as for `fleetseg.predict`.
            tiled: as for `fleetseg.predict`.

        Returns:
            (H, W) for one image, (N, H, W) for an array or tensor of N, otherwise a list of (H, W).

        Raises:
            DataError: not an image.
            ModelError, ConfigError, OutOfMemory: as `fleetseg.predict`.
        """
        given = Norms(norms) if batch_size is None else Norms(norms, batch_size)
        # A single image is a batch of its own: no memory needs to be measured.
        manner = Manner(1 if batch_size is None and is_one_image(images) else batch_size, tiled)
        ready = read_once(self._ready(precision, given))
        require_usable(ready, manner)
        maps = [look.map_HW for look in looks(ready, read_images(images), manner)]
        if is_one_image(images):
            return maps[0]
        return np.stack(maps) if isinstance(images, np.ndarray | torch.Tensor) and maps else maps

    def overlay(
        self,
        images: ImageLike | Iterable[ImageLike],
        *,
        legend: bool = True,
        precision: str = "auto",
        tiled: bool = False,
    ) -> Image.Image | list[Image.Image]:
        """Return the image with the colours of its classes over it and their names below it.

        Args:
            images: one image or a batch, as for `predict`.
            legend: add a legend of class names below the image; without it, the image keeps its
                size.
            precision: auto, fp32, bf16 or fp16.
            tiled: as for `fleetseg.predict`.

        Returns:
            an image, or a list of images for a batch.

        Raises:
            DataError: not an image.
            ModelError, ConfigError, OutOfMemory: as `fleetseg.predict`.
        """
        draw = overlay_with_legend if legend else overlay
        ready = self._ready(precision, Norms())
        seen = looks(ready, read_images(images), Manner(tiled=tiled))
        pictures = [draw(look.image_HWC, look.map_HW, ready.space) for look in seen]
        return pictures[0] if is_one_image(images) else pictures

    def _ready(self, precision: str, norms: Norms) -> ReadyModel:
        device = self.mean.device
        ready = ready_model(self, device.type, precision, norms)
        return replace(ready, hardware=replace(ready.hardware, device=device))


def load_model(
    path: Path | str, net: nn.Module | None = None, cluster: int | None = None
) -> LoadedModel:
    """Load a saved model, in eval mode, with `.space` and `.size_hw` set, and `.untrained`.

    Args:
        path: a model folder, or a run folder that has one in `model/`.
        net: the network, for a model that `build_model` does not know; its weights are replaced.
        cluster: the number of a cluster of vehicles, for its model; None = the fleet's.

    Raises:
        ModelError: there is no such cluster; a file is missing, damaged or of another version; the
            weights do not fit.
        MissingExtra: the network needs a package that is not installed.
    """
    found = folder.load_model(given_path(path), net, cluster)
    mean, std = found.normalisation
    loaded = LoadedModel(
        found.net,
        name=found.name,
        num_classes=found.num_classes,
        mean=mean,
        std=std,
        stride=found.stride,
        head_prefixes=found.head_prefixes,
    )
    loaded.space, loaded.size_hw, loaded.untrained = found.space, found.size_hw, found.untrained
    loaded.norm_groups = found.norm_groups
    loaded.details, loaded.record = found.details, found.record
    return loaded.eval()
