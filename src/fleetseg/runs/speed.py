"""Measure how fast this machine trains, on noise."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np

from fleetseg import rng
from fleetseg.config import TrainingConfig
from fleetseg.data.sample import Pairs
from fleetseg.learning.hardware import resolve, threads
from fleetseg.learning.inputs import LocalInputs, RoundContext
from fleetseg.learning.local import train_locally
from fleetseg.models.build import build_model

_CLASSES = 11


@dataclass(frozen=True)
class Speed:
    """The training speed of one thread of this machine."""

    images_per_s: float
    precision: str
    device: str


def measure_speed(size_hw: tuple[int, int], batch_size: int, seconds: float) -> Speed:
    """Train fast_scnn on the device of "auto" for at least `seconds`."""
    hardware = resolve("auto", "auto")
    model = build_model("fast_scnn", _CLASSES).to(hardware.device)
    model.to(memory_format=hardware.memory_format)
    pairs = _noise(size_hw, batch_size)

    def train(steps: int, round_: int) -> float:
        started_s = time.perf_counter()
        training = TrainingConfig(batch_size=batch_size, local_steps=steps)
        context = RoundContext(seed=0, round=round_, total_rounds=1_000_000, client_id="doctor")
        train_locally(model, pairs, LocalInputs(context, training, size_hw, hardware))
        return time.perf_counter() - started_s

    with threads(1):
        train(1, 1)  # the first step compiles and allocates
        steps, spent_s = 0, 0.0
        while spent_s < seconds:
            spent_s += train(4, steps + 2)
            steps += 4
    return Speed(batch_size * steps / spent_s, hardware.precision, hardware.device.type)


def _noise(size_hw: tuple[int, int], count: int) -> Pairs:
    generator = rng.generator(0, purpose="doctor")
    return [
        (
            generator.integers(0, 256, (*size_hw, 3), dtype=np.uint8),
            generator.integers(0, _CLASSES, size_hw, dtype=np.uint8),
        )
        for _ in range(count)
    ]
