"""A fact of the fleet, and an objective that takes it: this file, and two dict lines."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from fleetseg.data.sample import Pairs
from fleetseg.federation.fleet_facts import Fact
from fleetseg.federation.messages import Enrolment
from fleetseg.learning.inputs import LocalInputs
from fleetseg.learning.objectives import Objective
from fleetseg.learning.parameters import Trainables

Floats = npt.NDArray[np.float32]


def _report(train: Pairs) -> Floats:
    colours = [train[k][0].reshape(-1, 3).mean(axis=0) for k in range(len(train))]
    return np.mean(colours, axis=0).astype(np.float32)


def _combine(enrolled: Mapping[str, Enrolment]) -> Floats:
    total = sum(e.num_images for e in enrolled.values())
    parts = [
        e.num_images / total * e.facts["toy colour"].astype(np.float64) for e in enrolled.values()
    ]
    return np.sum(parts, axis=0).astype(np.float32)


def _begin(inputs: LocalInputs, shared: Trainables) -> float:
    return float(inputs.facts["toy colour"].mean()) / 255


def _correct(brightness: float, shared: Trainables) -> None:
    for parameter in shared.parameters:
        if parameter.grad is not None:
            parameter.grad *= brightness


TOY_COLOUR = Fact(_combine, _report, shape=(3,), why="of all images at once")
TOY_BRIGHTNESS = Objective(facts=("toy colour",), begin=_begin, correct=_correct)
