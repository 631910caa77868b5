"""Milliseconds to add weather to an image, beside a training step's time per image.

    FLEETSEG_DATA=data python benchmarks/weather.py [--out FOLDER]

Frames of CamVid at 360 x 480, one thread, CPU time, medians over frames and draws. A step is on
whole frames in batches of 4, for each of `NETWORKS`. With `--out`, contact sheets are written
there: kinds down, severities across.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from fleetseg import rng
from fleetseg.config import TrainingConfig
from fleetseg.data.sample import Image_HWC
from fleetseg.data.weather.kinds import KINDS
from fleetseg.learning.hardware import resolve, threads
from fleetseg.learning.inputs import LocalInputs, RoundContext
from fleetseg.learning.local import train_locally
from fleetseg.models.build import build_model

SEVERITIES = (0.3, 0.6, 0.9)
FRAMES, STEPS, BATCH = 12, 2, 4
NETWORKS = ("zoo:fpn/timm-tf_efficientnet_lite0", "fast_scnn")


def frames() -> list[Image_HWC]:
    """Return frames of all drives, evenly spaced."""
    folder = Path(os.environ.get("FLEETSEG_DATA", "../shared/data")) / "camvid" / "train"
    paths = sorted(folder.glob("*.png"))
    return [np.asarray(Image.open(p).convert("RGB")) for p in paths[:: len(paths) // FRAMES]]


def median_ms(work: Callable[[int], object], count: int) -> float:
    """Median milliseconds of calls, in CPU time: other programs on a shared machine count less."""
    work(0)
    spent = []
    for number in range(count):
        start_s = time.process_time()
        work(number)
        spent.append(time.process_time() - start_s)
    return 1000 * float(np.median(spent))


def step_ms(name: str, images: list[Image_HWC], **training: object) -> float:
    """Milliseconds of training for one image, augmentation without weather included."""
    model, hardware = build_model(name, 11), resolve("cpu", "auto")
    label_HW = np.zeros(images[0].shape[:2], np.uint8)
    pairs = [(image, label_HW) for image in images]
    fields = {"batch_size": BATCH, "local_steps": STEPS, "scale": (1.0, 1.0), **training}
    inputs = LocalInputs(RoundContext(0, 1, 1, "car"), TrainingConfig(**fields),
                         label_HW.shape, hardware)  # fmt: skip
    return median_ms(lambda _: train_locally(model, pairs, inputs), 2) / (STEPS * BATCH)


def write_sheets(images: list[Image_HWC], folder: Path) -> None:
    """Write a picture per frame: a row for each kind, the original and each severity across."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, image in enumerate(images):
        rows = [
            np.concatenate([image, *(put(image, s, rng.generator(number, purpose=kind))
                                     for s in SEVERITIES)], axis=1)
            for kind, put in KINDS.items()
        ]  # fmt: skip
        Image.fromarray(np.concatenate(rows)).save(folder / f"weather-{number}.png")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path)
    out = parser.parse_args().out
    images = frames()
    if out is not None:
        write_sheets(images, out)
    torch.set_num_threads(1)
    with threads(1):
        costs = {}
        for kind, put in KINDS.items():
            costs[kind] = median_ms(
                lambda k, put=put: put(
                    images[k % len(images)], SEVERITIES[k % 3], rng.generator(k)
                ),
                2 * len(images),
            )
            print(f"{kind:<6}{costs[kind]:7.1f} ms")
        mean = float(np.mean([*costs.values()]))
        print(f"mean  {mean:7.1f} ms")
        for name in NETWORKS:
            plain = step_ms(name, images[:8])
            mixed = step_ms(name, images[:8], mixstyle={"probability": 1.0})
            print(f"{name}: a step takes {plain:.0f} ms per image; weather on each image adds "
                  f"{mean / plain:.0%}, MixStyle in each step {mixed / plain - 1:.0%}")  # fmt: skip


if __name__ == "__main__":
    main()
