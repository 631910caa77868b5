"""Predict each image with the norm statistics of its condition, chosen by a classifier.

After the weather-wise batch norms of HyperFLAW (Rizzoli, Caligiuri, Shenaj, Barbato, Zanuttigh
2025, arXiv 2403.13762): there a frozen classifier chooses the bank of a batch; here a classifier
fitted when the banks are filled chooses for each image, by its pixels alone, so that an image's
prediction does not depend on which others are scored. The condition that a data set states for a
frame is never used.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from fleetseg.evaluation.adaptation import Passes
from fleetseg.evaluation.predict import Images_NHWC
from fleetseg.models.norm_banks import NormBanks
from fleetseg.models.norm_statistics import lent_statistics


class Banked:
    """Scores images with the statistics of their conditions' banks; see Reader."""

    def __init__(self, passes: Passes, banks: NormBanks) -> None:
        self._passes, self._banks, self._domain = passes, banks, ""

    def begin_domain(self, name: str) -> None:
        """Record the domain for which choices are reported."""
        self._domain = name

    def __call__(self, images_NHWC: Images_NHWC) -> Tensor:
        """Return the logits (N, C, h, w) of a batch."""
        chosen = [self._banks.classifier.choose(image_HWC) for image_HWC in images_NHWC]
        for name in chosen:
            self._passes.on_choice(self._domain, name)
        parts, order = [], []
        for name in sorted(set(chosen)):
            indices = [index for index, other in enumerate(chosen) if other == name]
            with lent_statistics(self._passes.model, dict(self._banks.statistics[name])):
                parts.append(self._passes.plain(images_NHWC[indices]))
            order += indices
        return torch.cat(parts)[torch.from_numpy(np.argsort(order))]
