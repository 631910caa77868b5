"""Tileable noise: clouds, and white noise that also serves as a hash of two integers."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt

from fleetseg.rng import generator

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int32]
TILE = 256
_GRAIN = 1024  # side of the tile of sensor noise, larger than most images


@lru_cache(maxsize=1)
def smooth_tile() -> Floats:
    """Periodic cloud-like noise, shape (TILE, TILE), mean 0, about -1 to 1."""
    rng = generator(0, purpose="synthetic smooth tile")
    total = np.zeros((TILE, TILE), dtype=np.float32)
    for octave in range(2, 8):
        cells = 2**octave
        knots = rng.random((cells, cells), dtype=np.float32) * 2 - 1
        total += _stretch(_stretch(knots).T).T * np.float32(0.62 ** (octave - 2))
    spread = np.float32(np.abs(total).max())
    return total / spread


def _stretch(knots: Floats) -> Floats:
    """Stretch rows to TILE, periodically, with a smooth curve between knots."""
    cells = knots.shape[0]
    position = np.arange(TILE, dtype=np.float32) * np.float32(cells / TILE)
    whole = position.astype(np.int32)
    part = position - whole
    part = (part * part * (3 - 2 * part))[:, None]
    stretched: Floats = knots[whole] * (1 - part) + knots[(whole + 1) % cells] * part
    return stretched


@lru_cache(maxsize=1)
def white_tile() -> Floats:
    """White noise, shape (TILE, TILE), uniform over -1 to 1."""
    rng = generator(0, purpose="synthetic white tile")
    return rng.random((TILE, TILE), dtype=np.float32) * 2 - 1


def smooth(u: Floats, v: Floats) -> Floats:
    """Look up smooth noise at (u, v) texels."""
    noise: Floats = smooth_tile()[v.astype(np.int32) & 255, u.astype(np.int32) & 255]
    return noise


def white(u: Floats | Ints, v: Floats | Ints) -> Floats:
    """Look up white noise at (u, v) texels; also serves as a hash of two integers."""
    noise: Floats = white_tile()[v.astype(np.int32) & 255, u.astype(np.int32) & 255]
    return noise


@lru_cache(maxsize=1)
def _grain_tile() -> Floats:
    rng = generator(0, purpose="sensor grain tile")
    return rng.standard_normal((_GRAIN, _GRAIN), dtype=np.float32)


def grain(size_hw: tuple[int, int], rng: np.random.Generator) -> Floats:
    """Return normal noise, one value per pixel, cut from a tile at a random position.

    Cutting takes a tenth of the time of drawing each value.
    """
    height, width = size_hw
    down, right = (float(place) for place in rng.random(2))
    tile = _grain_tile()
    if height >= _GRAIN or width >= _GRAIN:
        tile = np.tile(tile, (height // _GRAIN + 2, width // _GRAIN + 2))
    top, left = int(down * (tile.shape[0] - height)), int(right * (tile.shape[1] - width))
    return tile[top : top + height, left : left + width]


def clouds(size_hw: tuple[int, int], rng: np.random.Generator, *, across: float = 1.5) -> Floats:
    """Return cloud-like noise over an image, about -1 to 1, with `across` tiles per width."""
    height, width = size_hw
    left, top = rng.random(2) * TILE
    step = np.float32(across * TILE / width)
    u = np.arange(width, dtype=np.float32)[None, :] * step + np.float32(left)
    v = np.arange(height, dtype=np.float32)[:, None] * step + np.float32(top)
    return smooth(u, v)
