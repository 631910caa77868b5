"""Features of a pretrained encoder: one vector per image, for scenarios based on appearance."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from fleetseg.data.sample import Sample, Source
from fleetseg.errors import BadSample
from fleetseg.models.build import build_model
from fleetseg.models.pretrained import LITE0
from fleetseg.models.segmenter import Segmenter

SIZE_HW = (224, 320)
"""Images are first resized to this, in pixels: a multiple of the encoder's stride of 32."""
_BATCH = 8


def embed(
    source: Source, progress: Callable[[str, int, int], None] | None = None
) -> npt.NDArray[np.float32]:
    """Return the mean features of each image, shape (N, D), by EfficientNet-Lite0 from ImageNet.

    A bad image gets the vector 0; it is reported when the data are opened for training.

    Raises:
        MissingExtra: the encoder or its weights are not installed.
    """
    network = build_model(f"zoo:fpn/{LITE0}", 2, pretrained="imagenet").eval()
    parts = []
    for start in range(0, len(source.samples), _BATCH):
        some = source.samples[start : start + _BATCH]
        parts.append(_features(network, [_image(source, sample) for sample in some]))
        if progress:
            progress(f"features of {source.name}", start + len(some), len(source.samples))
    return np.concatenate(parts)


def _image(source: Source, sample: Sample) -> Tensor | None:
    """Read an image as (3, H, W) in [0, 1]; None for a bad one."""
    try:
        image_HWC, _ = source.read(sample)
    except BadSample:
        return None
    image_NCHW = torch.from_numpy(image_HWC.copy()).permute(2, 0, 1).unsqueeze(0).float() / 255
    return functional.interpolate(image_NCHW, SIZE_HW, mode="bilinear", antialias=True)[0]


def _features(network: Segmenter, images: list[Tensor | None]) -> npt.NDArray[np.float32]:
    blank = torch.zeros(3, *SIZE_HW)
    images_NCHW = torch.stack([blank if image is None else image for image in images])
    with torch.inference_mode():
        stages = network.net.encoder((images_NCHW - network.mean) / network.std)  # type: ignore[operator]
        features_ND: npt.NDArray[np.float32] = stages[-1].mean(dim=(2, 3)).numpy()
    features_ND[[image is None for image in images]] = 0
    return features_ND
