"""A street whose truth is what the current model says of it: both models' scores are known."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from tests.models_on_disk import saved_camvid_model

from fleetseg.data.labels import CAMVID_11
from fleetseg.evaluation.predict import predict
from fleetseg.experiment_file import make_experiment, to_toml
from fleetseg.models.folder import load_model, save_model
from fleetseg.models.segmenter import Segmenter

SIZE_HW = (48, 64)
PEDESTRIAN = CAMVID_11.classes.index("pedestrian")


@dataclass(frozen=True)
class World:
    """A current model that is always right, a candidate that sees no pedestrian, and frames."""

    current: Path
    blind: Path
    experiment: Path


def make_world(home: Path) -> World:
    """Save both models, and write the frames of a server and of three vehicles."""
    saved_camvid_model(home / "first", SIZE_HW)
    model = load_model(home / "first")
    images = [_street(number) for number in range(18)]  # 12 for the server, 6 for the vehicles
    _name_a_common_class_pedestrian(model, images)
    _save(model, home / "current")
    for number, image_HWC in enumerate(images):
        name = f"{('0001TP', '0016E5')[number % 2]}_{number:06d}.png"
        label_HW = predict(model, image_HWC[None], SIZE_HW)[0]
        split = "val" if number < 12 else "train"
        for folder, pixels in ((split, image_HWC), (f"{split}annot", label_HW)):
            (home / "data" / folder).mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(home / "data" / folder / name)
    with torch.no_grad():
        _head(model).bias[PEDESTRIAN] -= 1000
    _save(model, home / "blind")
    source = {"kind": "camvid", "root": str(home / "data")}
    fields = {
        "name": "street",
        "data": {
            "size": list(SIZE_HW),
            "cache": str(home / "cache"),
            "sources": [{**source, "split": "train"}],
            "evaluation": [{**source, "split": "val"}],
        },
        "partition": {"kind": "iid", "clients": 3, "holdout": 0.5},
        "evaluation": {"by": "sequence"},
        "engine": {"precision": "fp32"},
    }
    (home / "street.toml").write_text(to_toml(make_experiment(fields)))
    return World(home / "current", home / "blind", home / "street.toml")


def _street(number: int) -> np.ndarray:
    """Blocks of colours: what an untrained network tells apart."""
    draws = np.random.default_rng(number)
    blocks = draws.integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return np.kron(blocks, np.ones((8, 8, 1), np.uint8))


def _head(model: Segmenter) -> torch.nn.Conv2d:
    heads = [m for m in model.modules() if isinstance(m, torch.nn.Conv2d) and m.out_channels == 11]
    return next(head for head in heads if head.in_channels == 128)


def _name_a_common_class_pedestrian(model: Segmenter, images: list[np.ndarray]) -> None:
    seen = np.concatenate([predict(model, image[None], SIZE_HW).ravel() for image in images])
    common = int(np.argsort(np.bincount(seen, minlength=11))[-2])
    order = list(range(11))
    order[common], order[PEDESTRIAN] = PEDESTRIAN, common
    with torch.no_grad():
        for values in (_head(model).weight, _head(model).bias):
            values.copy_(values[order].clone())


def _save(model: Segmenter, folder: Path) -> None:
    save_model(model, folder, space=CAMVID_11, size_hw=SIZE_HW, details={})
