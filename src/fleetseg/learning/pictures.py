"""Images without their labels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fleetseg.data.sample import Image_HWC, Label_HW, Pairs

_PICTURE = 0
"""Label of every pixel of an unlabelled image, so that IGNORE marks pixels outside the image."""


@dataclass(frozen=True)
class Pictures:
    """Pairs without their labels: a constant label marks only where the image is."""

    pairs: Pairs

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int, /) -> tuple[Image_HWC, Label_HW]:
        image_HWC, _ = self.pairs[index]
        return image_HWC, np.full(image_HWC.shape[:2], _PICTURE, np.uint8)
