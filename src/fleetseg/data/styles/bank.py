"""The bank of a fleet's styles, and its use on images: draw a vehicle, then one of its styles.

A bank is one float32 array with one row per style: a number that identifies the owner, then the
style's numbers. A client's number depends on its name alone, so that a client recognises its own
styles; a name can be guessed but not read.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fleetseg.config import StyleConfig
from fleetseg.data.sample import Image_HWC
from fleetseg.data.styles.style import KINDS, Style, evenly, shape_of, styled

Floats = npt.NDArray[np.float32]
Numbers_N4 = npt.NDArray[np.float64]


def owner_number(client_id: str) -> float:
    """Return the number that identifies a client: one of 2^24, all exact in float32."""
    digest = hashlib.blake2b(client_id.encode(), digest_size=3, person=b"style owner").digest()
    return float(int.from_bytes(digest, "little"))


def bank_of(styles_of: Mapping[str, Floats], most: int) -> Floats:
    """Combine the styles of clients into one bank of at most `most` numbers.

    Each client keeps as many evenly chosen styles as fit. If there is not room for one style of
    each, the clients with the highest owner numbers are left out, whoever the others are.

    Args:
        styles_of: client -> its styles, shape (styles, ...).
        most: largest number of values, including owner numbers.

    Returns:
        float32 of shape (rows, 1 + numbers of a style), in order of owners.
    """
    told = {client: rows for client, rows in styles_of.items() if len(rows)}
    if not told:
        return np.zeros((0, 1), np.float32)
    flat = {owner_number(c): rows.reshape(len(rows), -1) for c, rows in sorted(told.items())}
    room = max(1, most // (1 + next(iter(flat.values())).shape[1]))
    kept = sorted(flat)[:room]
    each = room // len(kept)
    parts = [
        np.column_stack([np.full(len(chosen), owner), chosen])
        for owner in kept
        for chosen in [flat[owner][evenly(len(flat[owner]), each)]]
    ]
    return np.concatenate(parts).astype(np.float32)


def num_owners(bank: Floats) -> int:
    """Return the number of clients with styles in a bank."""
    return len(np.unique(bank[:, 0]))


@dataclass(frozen=True)
class Restyling:
    """Applies styles of other clients to images, each with some probability."""

    kind: str
    probability: float
    styles: tuple[Floats, ...]  # of each other client: shape (styles, *shape of one)

    @classmethod
    def of(
        cls, config: StyleConfig, bank: Floats, size_hw: tuple[int, int], client_id: str = ""
    ) -> Restyling:
        """Read a bank, leaving out the styles of `client_id`; a server, with "", keeps all.

        If no other client has a style, images stay unchanged.
        """
        shape = shape_of(config, size_hw)
        bank = bank.reshape(-1, 1 + math.prod(shape))  # an empty bank arrives flat from the network
        owners = [x for x in np.unique(bank[:, 0]) if x != owner_number(client_id)]
        rows = (bank[bank[:, 0] == owner, 1:] for owner in owners)
        styles = tuple(part.reshape(len(part), *shape) for part in rows)
        return cls(config.kind, config.probability, styles)

    def draw(self, count: int, generator: np.random.Generator) -> Numbers_N4:
        """Draw the random numbers of a batch: one row per image, shape (count, 4)."""
        return generator.random((count, 4))

    def style(self, numbers_4: npt.NDArray[np.float64]) -> Style | None:
        """Choose a style from an image's random numbers; None = leave the image unchanged."""
        chance, client, which, share = numbers_4.tolist()
        if not self.styles or chance >= self.probability:
            return None
        own = self.styles[int(client * len(self.styles))]
        return Style(
            self.kind, own[int(which * len(own))], share if KINDS[self.kind].mixes else 1.0
        )

    def restyled(self, image_HWC: Image_HWC, numbers_4: npt.NDArray[np.float64]) -> Image_HWC:
        """Return an image in the style that its numbers select, or unchanged."""
        style = self.style(numbers_4)
        return image_HWC if style is None else styled(image_HWC, style)
