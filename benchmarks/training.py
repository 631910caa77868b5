"""Images per second of local training on the default path, against naive PyTorch.

    python benchmarks/training.py

Default path: channels-last, bfloat16 autocast where the CPU has it, our upsampling, augmentation
included. Naive: the same network in float32 NCHW, `interpolate` and `cross_entropy`, on preloaded
tensors. Both alternate on the same number of threads.
"""

from __future__ import annotations

import argparse
import statistics
import time

import numpy as np
import torch
from torch.nn import functional

from fleetseg.config import TrainingConfig
from fleetseg.learning.hardware import resolve
from fleetseg.learning.inputs import LocalInputs, RoundContext
from fleetseg.learning.local import train_locally
from fleetseg.models.build import build_model

SIZE_HW = (256, 320)
BATCH = 8
STEPS = 4


def ours(name: str) -> float:
    """Images per second of `train_locally`."""
    hardware = resolve("cpu", "auto")
    model = build_model(name, 11).to(memory_format=torch.channels_last)
    generator = np.random.Generator(np.random.Philox(0))
    pairs = [
        (
            generator.integers(0, 256, (*SIZE_HW, 3), dtype=np.uint8),
            generator.integers(0, 11, SIZE_HW, dtype=np.uint8),
        )
        for _ in range(BATCH)
    ]
    training = TrainingConfig(batch_size=BATCH, local_steps=STEPS)

    def once() -> None:
        context = RoundContext(0, 1, 1, "c")
        train_locally(model, pairs, LocalInputs(context, training, SIZE_HW, hardware))

    once()
    started_s = time.perf_counter()
    once()
    return BATCH * STEPS / (time.perf_counter() - started_s)


def naive(name: str) -> float:
    """Images per second of a tutorial's training loop."""
    model = build_model(name, 11).train()
    optimiser = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    images_NCHW = torch.rand(BATCH, 3, *SIZE_HW)
    labels_NHW = torch.randint(0, 11, (BATCH, *SIZE_HW))

    def step() -> None:
        optimiser.zero_grad()
        loss = sum(
            functional.cross_entropy(
                functional.interpolate(x, SIZE_HW, mode="bilinear", align_corners=False),
                labels_NHW,
                ignore_index=255,
            )
            for x in model(images_NCHW)
        )
        loss.backward()
        optimiser.step()

    step()
    started_s = time.perf_counter()
    for _ in range(STEPS):
        step()
    return BATCH * STEPS / (time.perf_counter() - started_s)


def main() -> None:
    """Print images per second and the ratio for each network."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=3)
    names = ["fast_scnn", "bisenetv2", "zoo:fpn/timm-tf_efficientnet_lite0"]
    parser.add_argument("--models", nargs="+", default=names)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    hardware = resolve("cpu", "auto")
    print(
        f"torch {torch.__version__}, {options.threads} thread(s), {hardware.precision} by default"
    )
    for name in options.models:
        pairs = [(ours(name), naive(name)) for _ in range(options.repeats)]
        fast, slow = (statistics.median(column) for column in zip(*pairs, strict=True))
        ratio = statistics.median(a / b for a, b in pairs)
        print(f"{name:40s} {fast:6.1f} against {slow:6.1f} images/s: {ratio:.2f} x (aim >= 2)")


if __name__ == "__main__":
    main()
