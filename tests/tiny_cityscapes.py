"""A tiny data set in Cityscapes' layout, and splits of it in the published formats."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from fleetseg import rng

SIZE_HW = (64, 128)
RAW_IDS = (7, 8, 11, 17, 21, 23, 24, 26)
"""Road, pavement, building, pole, vegetation, sky, person, car."""


def write_cityscapes(root: Path, cities: Mapping[str, int], split: str = "train") -> Path:
    """Write so many frames of each city: bands of classes, with noise on the image."""
    for city, frames in cities.items():
        for frame in range(frames):
            generator = rng.generator(frame, client_id=city, purpose="tiny-cityscapes")
            rows = np.sort(generator.choice(np.arange(4, 60), len(RAW_IDS) - 1, replace=False))
            bands = np.searchsorted(rows, np.arange(SIZE_HW[0]), side="right")
            ids = np.array(RAW_IDS, np.uint8)[generator.permutation(len(RAW_IDS))[bands]]
            label_HW = np.repeat(ids[:, None], SIZE_HW[1], axis=1)
            noise = generator.integers(0, 40, (*SIZE_HW, 3), np.uint8)
            image_HWC = (label_HW[..., None] * 7 + noise).astype(np.uint8)
            _save(
                root / "leftImg8bit" / split / city, f"{stem(city, frame)}_leftImg8bit", image_HWC
            )
            _save(root / "gtFine" / split / city, f"{stem(city, frame)}_gtFine_labelIds", label_HW)
    return root


def stem(city: str, frame: int) -> str:
    """Name a frame as Cityscapes does."""
    return f"{city}_{frame:06d}_000019"


def write_split(path: Path, clients: Mapping[str, Sequence[tuple[str, int]]]) -> Path:
    """Write FedDrive's JSON: client -> (city, frame), paths from the split's folder on."""
    user_data = {
        client: {
            "x": [f"train/{city}/{stem(city, n)}_leftImg8bit.png" for city, n in frames],
            "y": [f"train/{city}/{stem(city, n)}_gtFine_labelIds.png" for city, n in frames],
        }
        for client, frames in clients.items()
    }
    counts = [len(data["x"]) for data in user_data.values()]
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {"users": list(user_data), "num_samples": counts, "user_data": user_data}
    path.write_text(json.dumps(content))
    return path


def _save(folder: Path, name: str, pixels: np.ndarray) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(folder / f"{name}.png")
