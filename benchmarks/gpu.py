"""Training, rounds and scoring on one GPU, each against torch's plain loop in the same run.

    python benchmarks/gpu.py            # 4 minutes on a large GPU
    python benchmarks/gpu.py --quick    # a look at whether it works; also with --device cpu
    python benchmarks/gpu.py --parts loading --models fast_scnn bisenetv2 --minutes 2.5

Synthetic pictures only. Every figure is the median of several repeats, which alternate with the
reference; times end with a synchronisation. A measurement that fails or is out of time is
skipped, and its line says why.

* plain loop: preloaded tensors on the GPU, channels-last, autocast (torch's GradScaler for fp16),
  `interpolate` and `cross_entropy`, torch's own choice of kernels (sums in any order, TF32);
* ours: `train_locally` from pictures in main memory, in a fixed order of sums; "augmented" with the
  default scaling, crops, flips and jitter on one CPU thread; "any order" without the fixed order;
* preloaded: the steps of `train_locally` on one batch that stays on the GPU; "n loaders": the
  augmented training with n loader threads, including the start of a round.
"""

from __future__ import annotations

import argparse
import dataclasses
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

import fleetseg
from fleetseg import rng
from fleetseg.config import TrainingConfig
from fleetseg.errors import FleetSegError
from fleetseg.evaluation.predict import evaluate_pairs
from fleetseg.experiment_file import make_experiment
from fleetseg.hosts import allowed_cores
from fleetseg.learning.hardware import Hardware, resolve
from fleetseg.learning.inputs import LocalInputs, RoundContext
from fleetseg.learning.local import train_locally
from fleetseg.learning.parameters import build_optimiser
from fleetseg.learning.scaling import LossScale, take_step
from fleetseg.learning.supervision import SUPERVISION
from fleetseg.models.build import build_model

CLASSES = 11
NETWORKS = ("fast_scnn", "bisenetv2", "zoo:deeplabv3plus/resnet50")
LOADERS = (0, 1, 2, 4)
UNTOUCHED: dict[str, Any] = {"scale": (1, 1), "flip": False, "colour_jitter": 0.0}
Pairs = list[tuple[np.ndarray, np.ndarray]]


@dataclasses.dataclass(frozen=True)
class Plan:
    """What is measured, and how often."""

    device: str
    networks: tuple[str, ...]
    size_hw: tuple[int, int]
    batch: int
    steps: int
    repeats: int
    until_s: float  # of time.perf_counter: parts that have not begun by then are left out

    @property
    def late(self) -> bool:
        """Whether the time is up."""
        return time.perf_counter() > self.until_s


class AnyOrder(Hardware):
    """The same device, without the fixed order of sums."""

    @contextmanager
    def exact(self) -> Iterator[None]:
        """Leave torch its choice."""
        yield


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--device", default="cuda", choices=["cuda", "mps", "cpu"])
    parser.add_argument("--quick", action="store_true", help="small images, one network")
    parser.add_argument("--minutes", type=float, default=4.0)
    parser.add_argument("--models", nargs="+", default=list(NETWORKS))
    parser.add_argument("--parts", nargs="+", default=list(PARTS), choices=list(PARTS))
    parser.add_argument("--formats", nargs="+", help="number formats (default: all of the device)")
    options = parser.parse_args()
    torch.set_num_threads(1)
    until_s = time.perf_counter() + 60 * options.minutes
    plan = Plan(options.device, tuple(options.models), (512, 1024), 8, 10, 3, until_s)
    if options.quick:
        plan = dataclasses.replace(
            plan, networks=plan.networks[:1], size_hw=(64, 128), batch=4, steps=2, repeats=2
        )
    print(header(plan), flush=True)
    for network in plan.networks:
        for part in (PARTS[name] for name in options.parts):
            print(f"\n{network}: {part.__doc__}", flush=True)
            for precision in options.formats or formats(plan.device):
                print(f"  {precision}  {tell(part, plan, network, precision)}", flush=True)


def tell(part: Callable[..., str], plan: Plan, network: str, precision: str) -> str:
    """Measure, or say why not."""
    if plan.late:
        return "skipped: time is up"
    try:
        return part(plan, network, resolve(plan.device, precision))
    except (FleetSegError, torch.OutOfMemoryError) as error:
        return f"skipped: {str(error)[:120]}"
    finally:
        if plan.device == "cuda":
            torch.cuda.empty_cache()


def header(plan: Plan) -> str:
    """Name the machine."""
    height, width = plan.size_hw
    name = plan.device
    if plan.device == "cuda":
        facts = torch.cuda.get_device_properties(0)
        major, minor = torch.cuda.get_device_capability(0)
        name = f"{facts.name}, {facts.total_memory / 1e9:.0f} GB, capability {major}.{minor}"
    return (
        f"{name}, {allowed_cores()} cores\nfleetseg {fleetseg.__version__}, torch "
        f"{torch.__version__}, CUDA {torch.version.cuda}; {height} x {width}, batches of "
        f"{plan.batch}, {CLASSES} classes, {plan.steps} steps, median of {plan.repeats}"
    )


def formats(device: str) -> tuple[str, ...]:
    """All number formats of a device."""
    return ("fp32", "bf16") if device == "cpu" else ("fp32", "bf16", "fp16")


def training(plan: Plan, network: str, hardware: Hardware) -> str:
    """Training, images/s (peak memory in MB)."""
    free = AnyOrder(hardware.device, hardware.precision)
    cases: dict[str, Callable[[int], None]] = {
        "plain loop": plain_loop(plan, network, hardware),
        "ours": our_training(plan, network, hardware, UNTOUCHED),
        "augmented": our_training(plan, network, hardware, {}),
        "any order": our_training(plan, network, free, UNTOUCHED),
    }
    peaks: dict[str, float] = {}
    for name, case in cases.items():
        reset_peak(hardware)
        case(2)  # compiles and allocates
        peaks[name] = peak_mb(hardware)
    taken_s: dict[str, list[float]] = {name: [] for name in cases}
    for _ in range(plan.repeats):
        for name, case in cases.items():
            taken_s[name].append(timed(lambda case=case: case(plan.steps), hardware))
    images = plan.batch * plan.steps
    speeds = {name: images / statistics.median(times) for name, times in taken_s.items()}
    told = ", ".join(f"{n} {speeds[n]:.1f} ({peaks[n]:.0f})" for n in cases)
    return f"{told}: ours {speeds['ours'] / speeds['plain loop']:.2f} x the plain loop"


def loading(plan: Plan, network: str, hardware: Hardware) -> str:
    """Augmented training by number of loaders, images/s."""
    cases = {"preloaded": preloaded(plan, network, hardware)}
    for loaders in LOADERS:
        with_loaders = dataclasses.replace(hardware, loaders=loaders)
        cases[f"{loaders} loaders"] = our_training(plan, network, with_loaders, {})
    for case in cases.values():
        case(2)
    steps, taken_s = 2 * plan.steps, {name: list[float]() for name in cases}
    for _ in range(plan.repeats):
        for name, case in cases.items():
            taken_s[name].append(timed(lambda case=case: case(steps), hardware))
    speeds = {n: plan.batch * steps / statistics.median(times) for n, times in taken_s.items()}
    full = speeds.pop("preloaded")
    told = ", ".join(f"{name} {speed:.1f} ({speed / full:.2f} x)" for name, speed in speeds.items())
    return f"preloaded {full:.1f}, {told}: aim >= 0.90 x with the best number of loaders"


def preloaded(plan: Plan, network: str, hardware: Hardware) -> Callable[[int], None]:
    """Steps of local training on one preloaded batch."""
    model = prepared(network, hardware).train()
    settings = TrainingConfig(batch_size=plan.batch, lr=0.01)
    context = RoundContext(0, 1, 1, "benchmark")
    loss_of = SUPERVISION["labels"].make(LocalInputs(context, settings, plan.size_hw, hardware))
    optimiser, scale = build_optimiser(model, settings), LossScale.of(hardware.precision, {})
    images_NCHW, there_NHW = tensors(plan, hardware)
    labels_NHW = there_NHW.to("cpu", torch.uint8)
    labels_NHW = labels_NHW.pin_memory() if hardware.takes_bytes else labels_NHW

    def train(steps: int) -> None:
        with hardware.exact():
            for _ in range(steps):
                loss = loss_of(model, images_NCHW, labels_NHW)
                assert loss is not None
                take_step(model, loss, optimiser, scale, 0.0)

    return train


def our_training(
    plan: Plan, network: str, hardware: Hardware, changes: Mapping[str, Any]
) -> Callable[[int], None]:
    """Local training of one client."""
    model = prepared(network, hardware)
    pairs = pictures(plan, plan.batch)

    def train(steps: int) -> None:
        settings = TrainingConfig(batch_size=plan.batch, local_steps=steps, lr=0.01, **changes)
        train_locally(
            model,
            pairs,
            LocalInputs(RoundContext(0, 1, 1, "benchmark"), settings, plan.size_hw, hardware),
        )

    return train


def plain_loop(plan: Plan, network: str, hardware: Hardware) -> Callable[[int], None]:
    """A tutorial's training loop, with the usual speed-ups."""
    model = prepared(network, hardware).train()
    optimiser = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    scaler = torch.amp.GradScaler(hardware.device.type, enabled=hardware.precision == "fp16")
    images_NCHW, labels_NHW = tensors(plan, hardware)

    def train(steps: int) -> None:
        for _ in range(steps):
            optimiser.zero_grad(set_to_none=True)
            with hardware.autocast():
                outputs = model(images_NCHW)
            loss = torch.stack([plain_loss(x, labels_NHW) for x in outputs]).sum()
            scaler.scale(loss).backward()
            scaler.step(optimiser)
            scaler.update()
            loss.item()

    return train


def plain_loss(logits_NChw: torch.Tensor, labels_NHW: torch.Tensor) -> torch.Tensor:
    size_hw = (labels_NHW.shape[1], labels_NHW.shape[2])
    logits_NCHW = functional.interpolate(logits_NChw.float(), size_hw, mode="bilinear")
    return functional.cross_entropy(logits_NCHW, labels_NHW, ignore_index=255)


def rounds(plan: Plan, network: str, hardware: Hardware) -> str:
    """Rounds of 4 clients, seconds, against the same steps of the plain loop."""
    clients = {f"car-{k}": pictures(plan, 2 * plan.batch, seed=k) for k in range(4)}
    described = make_experiment(
        {
            "data": {"size": list(plan.size_hw)},
            "model": {"name": network},
            "training": {"batch_size": plan.batch, "lr": 0.01, **UNTOUCHED},
            "federation": {"rounds": plan.repeats + 1},
            "engine": {
                "kind": "inprocess",
                "device": plan.device,
                "precision": hardware.precision,
            },
            "evaluation": {"every": 0},
        }
    )
    with tempfile.TemporaryDirectory() as folder:
        run = fleetseg.run(described, clients=clients, out=Path(folder) / "run")
    ours_s = statistics.median(record.seconds for record in run.records[1:])
    steps = run.records[-1].steps
    loop = plain_loop(plan, network, hardware)
    loop(2)
    plain_s = statistics.median(timed(lambda: loop(steps), hardware) for _ in range(plan.repeats))
    share = f"{ours_s / plain_s:.2f} x" if plain_s else "?"
    return f"{ours_s:.3f} s for {steps} steps, plain loop {plain_s:.3f} s: {share}"


def scoring(plan: Plan, network: str, hardware: Hardware) -> str:
    """Scoring at twice the size, images/s (peak memory in MB)."""
    model = prepared(network, hardware).eval()
    count = plan.batch * max(1, plan.steps // 2)
    pairs = pictures(plan, count, label_scale=2)
    images_NCHW, _ = tensors(plan, hardware)
    labels_NHW = torch.from_numpy(np.stack([label for _, label in pairs[: plan.batch]]))
    labels_NHW = labels_NHW.to(hardware.device).long()

    def ours() -> None:
        evaluate_pairs(
            model,
            pairs,
            num_classes=CLASSES,
            batch_size=plan.batch,
            device=hardware.device,
            context=hardware.inference,
        )

    def plain() -> None:
        for _ in range(count // plan.batch):
            with torch.inference_mode(), hardware.autocast():
                logits_NChw = model(images_NCHW)
            size_hw = (labels_NHW.shape[1], labels_NHW.shape[2])
            preds = functional.interpolate(logits_NChw.float(), size_hw, mode="bilinear").argmax(1)
            torch.bincount((labels_NHW * CLASSES + preds).flatten(), minlength=CLASSES**2).cpu()

    told, speeds = [], []
    for name, case in (("plain loop", plain), ("ours", ours)):
        reset_peak(hardware)
        case()
        median_s = statistics.median(timed(case, hardware) for _ in range(plan.repeats))
        speeds.append(count / median_s)
        told.append(f"{name} {speeds[-1]:.1f} ({peak_mb(hardware):.0f})")
    return f"{', '.join(told)}: ours {speeds[1] / speeds[0]:.2f} x the plain loop"


PARTS: dict[str, Callable[[Plan, str, Hardware], str]] = {
    "training": training,
    "loading": loading,
    "rounds": rounds,
    "scoring": scoring,
}


def prepared(network: str, hardware: Hardware) -> nn.Module:
    model: nn.Module = build_model(network, CLASSES).to(hardware.device)
    return model.to(memory_format=hardware.memory_format)


def pictures(plan: Plan, count: int, *, label_scale: int = 1, seed: int = 0) -> Pairs:
    """Noise images, with labels in blocks like those of label maps."""
    generator = rng.generator(seed, purpose="benchmark")
    height, width = plan.size_hw
    block = 16 * label_scale
    made = []
    for _ in range(count):
        coarse = generator.integers(0, CLASSES, (height // 16, width // 16), np.uint8)
        label = coarse.repeat(block, axis=0).repeat(block, axis=1)
        made.append((generator.integers(0, 256, (height, width, 3), np.uint8), label))
    return made


def tensors(plan: Plan, hardware: Hardware) -> tuple[torch.Tensor, torch.Tensor]:
    """One batch on the device."""
    pairs = pictures(plan, plan.batch)
    images_NHWC = torch.from_numpy(np.stack([image for image, _ in pairs]))
    labels_NHW = torch.from_numpy(np.stack([label for _, label in pairs])).long()
    images_NCHW = images_NHWC.permute(0, 3, 1, 2).to(hardware.device).float() / 255
    images_NCHW = images_NCHW.contiguous(memory_format=hardware.memory_format)
    return images_NCHW, labels_NHW.to(hardware.device)


def timed(work: Callable[[], None], hardware: Hardware) -> float:
    """Seconds until the device has finished the work."""
    synchronise(hardware)
    started_s = time.perf_counter()
    work()
    synchronise(hardware)
    return time.perf_counter() - started_s


def synchronise(hardware: Hardware) -> None:
    if hardware.device.type == "cuda":
        torch.cuda.synchronize()
    elif hardware.device.type == "mps":
        torch.mps.synchronize()


def reset_peak(hardware: Hardware) -> None:
    if hardware.device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def peak_mb(hardware: Hardware) -> float:
    return torch.cuda.max_memory_allocated() / 1e6 if hardware.device.type == "cuda" else 0.0


if __name__ == "__main__":
    main()
