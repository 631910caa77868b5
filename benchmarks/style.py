"""Time to give an image another vehicle's style, beside a training step's time per image.

    python benchmarks/style.py

Images of 360 x 480, one thread, no loaders: loaders would restyle images while a network trains.
Processor time, not time by the clock, so that a busy machine does not show; both sides alternate,
and the figures are medians over turns. A style is applied to every image here
(`training.style.probability` is 1/2 by default).
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch

from fleetseg.config import StyleConfig, TrainingConfig
from fleetseg.data.styles import Style, measured, styled
from fleetseg.learning.hardware import resolve
from fleetseg.learning.inputs import LocalInputs, RoundContext
from fleetseg.learning.local import train_locally
from fleetseg.models.build import build_model

SIZE_HW = (360, 480)
BATCH = 4
STEPS = 2
CLASSES = 11


def pairs(seed: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """A batch of pictures: a gradient of light with noise."""
    generator = np.random.Generator(np.random.Philox(seed))
    light = np.linspace(40, 200, SIZE_HW[0])[:, None, None]
    return [
        (
            (light + generator.integers(-40, 40, (*SIZE_HW, 3))).clip(0, 255).astype(np.uint8),
            generator.integers(0, CLASSES, SIZE_HW, dtype=np.uint8),
        )
        for _ in range(BATCH)
    ]


def cpu_ms(work: Callable[[], object], count: int) -> float:
    """Milliseconds of processor time of `work`, divided by `count`."""
    started_s = time.process_time()
    work()
    return 1e3 * (time.process_time() - started_s) / count


def stylist(kind: str) -> tuple[Callable[[], None], Callable[[], object]]:
    """Return a function that styles a batch of images, and one that measures a batch's style."""
    config = StyleConfig(kind=kind)  # type: ignore[arg-type]
    own, others = pairs(0), pairs(1)
    style = Style(kind, measured(others, config, SIZE_HW)[0], 0.5 if kind == "cfsi" else 1.0)

    def style_all() -> None:
        for image_HWC, _ in own:
            styled(image_HWC, style)

    return style_all, lambda: measured(own, config, SIZE_HW)


def trainer(name: str) -> Callable[[], object]:
    """Return a function that trains on a batch a few times, augmentation included."""
    hardware = resolve("cpu", "auto")
    model = build_model(name, CLASSES).to(memory_format=torch.channels_last)
    training = TrainingConfig(batch_size=BATCH, local_steps=STEPS)
    inputs = LocalInputs(RoundContext(0, 1, 1, "c"), training, SIZE_HW, hardware)
    samples = pairs(0)
    return lambda: train_locally(model, samples, inputs)


def main() -> None:
    """Print milliseconds per image, and those of styles as a share of training."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--turns", type=int, default=9)
    names = ["fast_scnn", "zoo:fpn/timm-tf_efficientnet_lite0"]
    parser.add_argument("--models", nargs="+", default=names)
    options = parser.parse_args()
    torch.set_num_threads(1)
    hardware = resolve("cpu", "auto")
    print(f"torch {torch.__version__}, one thread, {hardware.precision}, {SIZE_HW}")
    stylists = {kind: stylist(kind) for kind in ("fda", "cfsi", "lab")}
    trainers = {name: trainer(name) for name in options.models}
    taken: dict[str, list[float]] = {}
    for turn in range(options.turns + 1):
        for kind, (apply, measure) in stylists.items():
            for what, work in ((kind, apply), (f"{kind} measured", measure)):
                taken.setdefault(what, []).append(cpu_ms(work, BATCH))
        for name, train in trainers.items():
            taken.setdefault(name, []).append(cpu_ms(train, BATCH * STEPS))
        if turn == 0:  # the first turn is slower
            taken = {}
    for name, values in taken.items():
        text = f"{name:40s} {statistics.median(values):7.1f} ms per image"
        if name in stylists:
            shares = [
                statistics.median(a / b for a, b in zip(values, taken[model], strict=True))
                for model in options.models
            ]
            of = zip(shares, options.models, strict=True)
            text += ": " + ", ".join(f"{100 * share:.1f} % of {model}" for share, model in of)
        print(text)


if __name__ == "__main__":
    main()
