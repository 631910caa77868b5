"""Styles: how images look, in a few numbers, and images that take on another one's look.

`styled(image_HWC, style)` gives an image a style; `Restyling` draws styles from a fleet's bank, for
a client or for a server that trains on images of its own.
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
"""What the fleet's bank is called among facts, and a client's styles among what it reports."""
