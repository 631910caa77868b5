"""Measure the scores and the speed of a model's forms, compared with the network in torch."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping, Sequence

import numpy as np
import torch

from fleetseg.data.labels import LabelSpace
from fleetseg.data.sample import Image_HWC
from fleetseg.evaluation.confusion import confusion
from fleetseg.evaluation.predict import at_size
from fleetseg.evaluation.scores import Scores
from fleetseg.export.frames import Frames
from fleetseg.export.onnx_graph import Runner

_TURNS = 5
_SPEED_IMAGES = 4  # per turn, one at a time


def scores_of(run: Runner, frames: Frames, space: LabelSpace) -> Scores:
    """Score one form on labelled frames, at the labels' own resolution."""
    conf_CC = np.zeros((space.num_classes, space.num_classes), np.int64)
    for image_HWC, label_HW in zip(frames.images, frames.labels, strict=True):
        pred_HW = at_size(torch.from_numpy(run(image_HWC[None])), label_HW.shape)[0]
        conf_CC += confusion(label_HW, pred_HW, space.num_classes)
    return Scores.of(conf_CC, space)


def images_per_s(
    runners: Mapping[str, Runner], images: Sequence[Image_HWC], turns: int = _TURNS
) -> dict[str, float]:
    """Time all forms in turns, one image at a time; return the median over the turns of each.

    Turns and processor time keep out other work on the machine; this is correct for forms that use
    a single thread.
    """
    some = [image_HWC[None] for image_HWC in images[:_SPEED_IMAGES]]
    rates: dict[str, list[float]] = {name: [] for name in runners}
    for turn in range(turns + 1):
        for name, run in runners.items():
            started_s = time.process_time()
            for images_NHWC in some:
                run(images_NHWC)
            if turn:  # the first is a warm-up
                rates[name].append(len(some) / (time.process_time() - started_s))
    return {name: statistics.median(each) for name, each in rates.items()}
