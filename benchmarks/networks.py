"""What networks cost: parameters, multiplications, megabytes on the wire, images per second.

    python benchmarks/networks.py [NAME ...]

Training: `train_locally` with crops of 256 x 320 in batches of 4, augmentation included. Inference:
whole images of 360 x 480 to class ids, one by one, as a vehicle sees them. One thread; networks are
measured in turn, several times, and the median is printed, because the machine may be shared.
"""

from __future__ import annotations

import argparse
import statistics
import time

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from fleetseg.config import TrainingConfig
from fleetseg.federation.tensors import layout_of
from fleetseg.federation.wire import message_bytes
from fleetseg.learning.hardware import resolve
from fleetseg.learning.inputs import LocalInputs, RoundContext
from fleetseg.learning.local import train_locally
from fleetseg.models.build import build_model
from fleetseg.models.segmenter import Segmenter

_LITE0 = "timm-tf_efficientnet_lite0"
NETWORKS = (
    *(f"zoo:{arch}/{_LITE0}" for arch in ("fpn", "unet", "linknet", "deeplabv3plus")),
    *(f"zoo:{arch}/{_LITE0}" for arch in ("deeplabv3", "segformer")),
    "bisenetv2",
    "fast_scnn",
)
CLASSES = 11
CROP_HW, IMAGE_HW = (256, 320), (360, 480)
BATCH, STEPS, REPEATS = 4, 3, 5


def giga_multiplications(model: Segmenter) -> float:
    """Count multiply-accumulates of one image, in 1e9 (two operations each)."""
    counter = FlopCounterMode(display=False)
    with torch.inference_mode(), counter:
        model.eval()(torch.zeros(1, 3, *IMAGE_HW))
    return counter.get_total_flops() / 2e9


def trained_per_s(model: Segmenter) -> float:
    """Images per second of local training."""
    generator = np.random.Generator(np.random.Philox(0))
    pairs = [
        (
            generator.integers(0, 256, (*IMAGE_HW, 3), dtype=np.uint8),
            generator.integers(0, CLASSES, IMAGE_HW, dtype=np.uint8),
        )
        for _ in range(BATCH)
    ]
    training = TrainingConfig(batch_size=BATCH, local_steps=STEPS, crop=CROP_HW)
    inputs = LocalInputs(RoundContext(0, 1, 1, "c"), training, IMAGE_HW, resolve("cpu", "auto"))
    started_s = time.perf_counter()
    train_locally(model, pairs, inputs)
    return BATCH * STEPS / (time.perf_counter() - started_s)


def predicted_per_s(model: Segmenter) -> float:
    """Images per second of inference in the precision of this machine."""
    hardware = resolve("cpu", "auto")
    images_NCHW = torch.rand(1, 3, *IMAGE_HW).to(memory_format=torch.channels_last)
    model.eval()
    started_s = time.perf_counter()
    with torch.inference_mode(), hardware.autocast():
        for _ in range(STEPS):
            outputs = model(images_NCHW)
            logits_NCHW = outputs if isinstance(outputs, torch.Tensor) else outputs[0]
            torch.nn.functional.interpolate(logits_NCHW, IMAGE_HW, mode="bilinear").argmax(1)
    return STEPS / (time.perf_counter() - started_s)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", default=NETWORKS)
    names = parser.parse_args().names
    torch.set_num_threads(1)
    models = {name: build_model(name, CLASSES) for name in names}
    rates: dict[str, list[tuple[float, float]]] = {name: [] for name in names}
    for repeat in range(REPEATS + 1):
        for name, model in models.items():
            model.to(memory_format=torch.channels_last)
            measured = trained_per_s(model), predicted_per_s(model)
            if repeat:  # the first warms up
                rates[name].append(measured)
    columns = ("parameters, M", "output", "GMAC", "MB/broadcast", "images/s trained", "predicted")
    print(f"| network | {' | '.join(columns)} |")
    print("|---|--:|--:|--:|--:|--:|--:|")
    for name, model in models.items():
        parameters = sum(p.numel() for p in model.parameters()) / 1e6
        layout = layout_of(model)
        megabytes = message_bytes(layout, layout)[0] / 1e6
        with torch.inference_mode():
            height = model.eval()(torch.zeros(1, 3, *IMAGE_HW)).shape[2]
        trained, predicted = (statistics.median(rate) for rate in zip(*rates[name], strict=True))
        print(
            f"| {name} | {parameters:.2f} | 1/{round(IMAGE_HW[0] / height)} "
            f"| {giga_multiplications(model):.2f} | {megabytes:.1f} | {trained:.1f} "
            f"| {predicted:.1f} |"
        )


if __name__ == "__main__":
    main()
