"""Check on real images that an exported form computes the same as the network.

Logits may differ because of the order of sums; classes must not. int8 computes something else by
design, so only its classes are compared.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from fleetseg.data.sample import Image_HWC
from fleetseg.errors import ModelError
from fleetseg.evaluation.predict import at_size
from fleetseg.export.onnx_graph import Runner

MAX_DIFFERENCE = 1e-3
"""Of logits, relative to the largest one (at least 1): allows float32 sums in another order."""
MIN_AGREEMENT = 0.999
"""Least share of pixels with the same class."""
MIN_AGREEMENT_INT8 = 0.9
"""The default for 8 bits."""


@dataclass(frozen=True)
class Parity:
    """The difference between two forms of a model."""

    images: int
    max_difference: float  # of any logit
    largest: float  # magnitude of any logit
    agreement: float  # share of pixels whose class is the same, at the working size

    @property
    def relative(self) -> float:
        """The largest difference relative to the largest logit, or to 1 if that is smaller."""
        return self.max_difference / max(1.0, self.largest)

    def __str__(self) -> str:
        """Describe the difference in one line."""
        return (
            f"{self.images} images: logits differ by at most {self.max_difference:.1e} (largest "
            f"{self.largest:.1f}), classes agree in {100 * self.agreement:.3f} % of pixels"
        )


def parity(reference: Runner, other: Runner, images: Sequence[Image_HWC]) -> Parity:
    """Compare two forms image by image, the first two as one batch."""
    same = pixels = 0
    difference = largest = 0.0
    batches = [np.stack(images[:2])] + [image_HWC[None] for image_HWC in images[2:]]
    for images_NHWC in batches:
        wanted, got = reference(images_NHWC), other(images_NHWC)
        if wanted.shape != got.shape:
            raise ModelError(
                "the exported model's output has a different shape",
                got=got.shape,
                expected=wanted.shape,
            )
        # NaN must not count as "no difference".
        apart = np.abs(wanted - got)
        difference = max(difference, float(apart.max()) if np.isfinite(apart).all() else np.inf)
        largest = max(largest, float(np.abs(wanted).max()))
        size_hw = images_NHWC.shape[1:3]
        equal = at_size(torch.from_numpy(wanted), size_hw) == at_size(
            torch.from_numpy(got), size_hw
        )
        same, pixels = same + int(equal.sum()), pixels + equal.size
    return Parity(len(images), difference, largest, same / pixels)


def require_parity(found: Parity, what: str) -> None:
    """Refuse a float32 form that is not the same model.

    Raises:
        ModelError: logits or classes differ by more than rounding explains.
    """
    if found.relative <= MAX_DIFFERENCE and found.agreement >= MIN_AGREEMENT:
        return
    raise ModelError(
        "the exported model does not compute what the network does",
        where=what,
        got=found,
        expected=f"logits within {MAX_DIFFERENCE:g} of the largest, and classes that agree in "
        f"{100 * MIN_AGREEMENT:g} % of pixels",
        cure="Nothing was written. Another version of torch or onnxruntime may export it correctly",
    )


def require_agreement(found: Parity, least: float, what: str) -> None:
    """Refuse an 8-bit form that classifies too many pixels differently.

    Raises:
        ModelError: classes differ in more pixels than allowed.
    """
    if found.agreement >= least:
        return
    raise ModelError(
        "the 8-bit model classifies too many pixels differently",
        where=what,
        got=f"agreement in {100 * found.agreement:.2f} % of pixels",
        expected=f"{100 * least:g} % or more",
        cure="Nothing was written. Calibrate with more images like those that it will see, or "
        "allow less agreement with --min-agreement",
    )
