"""Cost of predicting beside the bare network: images per second of both, taken in turns.

    python benchmarks/predict.py MODEL IMAGES [--repeats N] [--images N] [--threads N]

MODEL is a run or model folder, IMAGES a folder of pictures of one size (e.g. CamVid's val). The
bare network gets tensors of its working size, prepared beforehand; its logits are resized to the
image and torch takes the argmax: no reading, no checks, no batches. It is compared with the loaded
model, given arrays one by one or all at once, and with predicting files to label maps, decoding and
encoding included. Ratios are medians over repeats, each within one repeat, by the clock and by
processor time. The latter leaves out other programs of the machine, and counts threads that read
and write beside the network as if they waited for each other.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional

import fleetseg
from fleetseg.data.sources.reading import read_image
from fleetseg.data.sources.walking import pictures
from fleetseg.data.store.decoding import resized_image
from fleetseg.learning.hardware import resolve
from fleetseg.runs.loaded import LoadedModel
from fleetseg.runs.predicted_files import predict_files
from fleetseg.runs.prediction_jobs import Request, Wanted

ONE_BY_ONE, BATCHES = "bare, one by one", "bare, batches of 8"


def bare(model: LoadedModel, images: list[np.ndarray], batch: int) -> Callable[[], object]:
    """Make the forward passes with argmax, and nothing else."""
    hardware = resolve(model.mean.device.type, "auto")
    assert model.size_hw is not None
    sized = np.stack([resized_image(image, model.size_hw) for image in images])
    inputs_NCHW = torch.from_numpy(sized).permute(0, 3, 1, 2).float() / 255  # channels last
    size_hw = images[0].shape[:2]

    def passes() -> None:
        with torch.inference_mode(), hardware.autocast():
            for part_NCHW in inputs_NCHW.split(batch):
                logits_NCHW = model(part_NCHW.to(model.mean.device)).float()
                if logits_NCHW.shape[-2:] != size_hw:
                    logits_NCHW = functional.interpolate(logits_NCHW, size_hw, mode="bilinear")
                logits_NCHW.argmax(1).to(torch.uint8).cpu()

    return passes


def files(model: LoadedModel, paths: list[Path], wanted: Wanted) -> Callable[[], object]:
    def predicted() -> None:
        with tempfile.TemporaryDirectory() as folder:
            predict_files(model, Request(paths, Path(folder) / "out", wanted))

    return predicted


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("images", type=Path)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--images", dest="count", type=int, default=8)
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    model = fleetseg.load_model(given.model)
    paths = [Path(path) for _, path in pictures(given.images)][: given.count]
    images = [read_image(str(path)) for path in paths]
    ways: dict[str, Callable[[], object]] = {
        ONE_BY_ONE: bare(model, images, 1),
        BATCHES: bare(model, images, 8),
        "model.predict, one by one": lambda: [model.predict(image) for image in images],
        "model.predict, list": lambda: model.predict(images),
        "fleetseg.predict": lambda: list(fleetseg.predict(model, images)),
        "files to label maps": files(model, paths, Wanted()),
        "with overlays": files(model, paths, Wanted(overlays=True)),
        "with confidence maps": files(model, paths, Wanted(certain=("confidence",))),
    }
    taken_s: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    for repeat in range(given.repeats + 1):
        for name, way in ways.items():
            started = time.perf_counter(), time.process_time()
            way()
            if repeat:  # the first warms up
                taken_s[name].append(
                    (time.perf_counter() - started[0], time.process_time() - started[1])
                )
    sizes = f"{images[0].shape[:2]}, working size {model.size_hw}"
    show(f"{model.name}, {sizes}, {given.threads} thread(s)", len(images), taken_s)


def show(title: str, count: int, taken_s: dict[str, list[tuple[float, float]]]) -> None:
    """Print images per second, and ratios to the bare network with batches of the same size."""
    seconds = {name: np.array(taken) for name, taken in taken_s.items()}
    print(f"{title}, {count} images, {len(seconds[ONE_BY_ONE])} repeats\n")
    heads = "images/s | relative to bare network, by the clock | by processor time"
    print(f"| | {heads} |\n|---|--:|--:|--:|")
    for name, taken in seconds.items():
        ratios = seconds[ONE_BY_ONE if "one by one" in name else BATCHES] / taken
        cells = [
            f"{np.median(ratio):.2f} ({ratio.min():.2f} to {ratio.max():.2f})" for ratio in ratios.T
        ]
        print(f"| {name} | {count / np.median(taken[:, 0]):.1f} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
