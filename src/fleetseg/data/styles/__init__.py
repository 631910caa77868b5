"""Styles: the look of images as a few numbers, and transfer of that look to other images.

`styled(image_HWC, style)` applies a style to an image; `Restyling` draws styles from the fleet's
bank, for a client or for a server that trains on its own images.
"""

from __future__ import annotations

from fleetseg.data.styles.bank import Restyling, bank_of, num_owners
from fleetseg.data.styles.noise import noise_std, noised
from fleetseg.data.styles.style import KINDS, Style, measured, shape_of, styled

__all__ = [
    "KINDS",
    "STYLES",
    "Restyling",
    "Style",
    "bank_of",
    "measured",
    "noise_std",
    "noised",
    "num_owners",
    "shape_of",
    "styled",
]

STYLES = "styles"
"""Key of the fleet's bank among facts, and of a client's styles in its report."""
