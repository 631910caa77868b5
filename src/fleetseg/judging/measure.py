"""Run frames one by one through a model: a confusion matrix for each, and all confidences.

Suffixes: H x W pixels, C classes. Images are given at the model's working size; everything is
counted at the labels' own resolution, with the norm statistics that the model has learnt, as in a
vehicle.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

from fleetseg.data.labels import IGNORE
from fleetseg.data.pool import Progress
from fleetseg.data.sample import Image_HWC, Label_HW, Pairs, ScoredPairs
from fleetseg.data.sources import evenly_spaced
from fleetseg.data.store.cache import Picked
from fleetseg.errors import OutOfMemory
from fleetseg.evaluation import predict
from fleetseg.evaluation.confusion import Conf_CC, confusion
from fleetseg.judging.calibration import bins_of
from fleetseg.judging.corruptions import SEVERITIES, corrupted
from fleetseg.judging.counts import Measured, Row, Rows
from fleetseg.judging.policy import Policy
from fleetseg.learning.hardware import Hardware
from fleetseg.memory import first_words, is_out_of_memory
from fleetseg.models.segmenter import Segmenter


class Looking(Protocol):
    """A model and the hardware that it runs on."""

    @property
    def segmenter(self) -> Segmenter:
        """The network, in eval mode."""
        ...

    @property
    def hardware(self) -> Hardware:
        """Device and number format."""
        ...

    def on_device(self) -> AbstractContextManager[None]:
        """Keep the model on its device within the block."""
        ...


@dataclass(frozen=True)
class Frame:
    """A labelled frame, read on demand."""

    row: Row
    pairs: Pairs
    number: int

    def pair(self) -> tuple[Image_HWC, Label_HW]:
        """Read the image at working size and its label at the label's own."""
        return self.pairs[self.number]


def frames_in(scored: ScoredPairs, name: str) -> tuple[Frame, ...]:
    """List the frames of some pairs, numbered under a name, with their drives where known."""
    pairs = scored.pairs
    drives = [""] * len(scored)
    if isinstance(pairs, Picked):
        drives = [f"{s.dataset}/{s.sequence}" if s.sequence else "" for s in pairs.samples]
    return tuple(
        Frame(Row(f"{name}/{number:04d}", domain, drive), pairs, number)
        for number, (domain, drive) in enumerate(zip(scored.domains, drives, strict=True))
    )


def measure(
    ready: Looking,
    frames: Sequence[Frame],
    policy: Policy,
    progress: Progress | None = None,
    what: str = "frames",
) -> Measured:
    """Score a model on each frame, and on corrupted versions of some.

    Raises:
        OutOfMemory: not even one image fits.
    """
    part = evenly_spaced(list(frames), policy.robustness.images)
    ways = [(kind, severity) for kind in policy.robustness.kinds for severity in SEVERITIES]
    count = _Counter(progress, what, len(frames) + len(part) * len(ways))
    bins_3B = np.zeros((3, policy.calibration.bins), np.int64)
    clean: list[Conf_CC] = []
    worse: dict[tuple[str, int], list[Conf_CC]] = {way: [] for way in ways}
    with ready.on_device(), predict.evaluating(ready.segmenter):
        for frame in frames:
            image_HWC, label_HW = frame.pair()
            pred_HW, confidence_HW = seen(ready, image_HWC, label_HW.shape)
            bins_3B += bins_of(confidence_HW, pred_HW, label_HW, policy.calibration.bins)
            clean.append(count(label_HW, pred_HW, ready))
        for frame in part:
            image_HWC, label_HW = frame.pair()
            for way in ways:
                bad_HWC = corrupted(*way, image_HWC, frame.row.name, policy.bootstrap.seed)
                pred_HW = predict.at_size(_logits(ready, bad_HWC), label_HW.shape)[0]
                worse[way].append(count(label_HW, pred_HW, ready))
    part_rows = tuple(frame.row for frame in part)
    return Measured(
        Rows(tuple(frame.row for frame in frames), np.stack(clean)),
        bins_3B,
        {way: Rows(part_rows, np.stack(confs)) for way, confs in worse.items()},
    )


class _Counter:
    """Computes confusion matrices and reports how many are done."""

    def __init__(self, progress: Progress | None, what: str, total: int) -> None:
        self._progress, self._what, self._total, self._done = progress, what, total, 0

    def __call__(self, label_HW: Label_HW, pred_HW: Label_HW, ready: Looking) -> Conf_CC:
        conf_CC = confusion(label_HW, pred_HW, ready.segmenter.num_classes, IGNORE)
        self._done += 1
        if self._progress is not None:
            self._progress(self._what, self._done, self._total)
        return conf_CC


def seen(
    ready: Looking, image_HWC: Image_HWC, size_hw: tuple[int, ...]
) -> tuple[Label_HW, npt.NDArray[np.float32]]:
    """Return the class of each pixel at `size_hw`, and its softmax probability."""
    logits_1CHW = _logits(ready, image_HWC)
    resized_1CHW = functional.interpolate(
        logits_1CHW, size_hw, mode="bilinear", align_corners=False
    )
    most_1HW = resized_1CHW.amax(dim=1)
    shares_1HW = 1 / torch.exp(resized_1CHW - most_1HW[:, None]).sum(dim=1)
    return predict.at_size(logits_1CHW, size_hw)[0], shares_1HW[0].cpu().numpy()


def _logits(ready: Looking, image_HWC: Image_HWC) -> torch.Tensor:
    try:
        return predict.forward(
            ready.segmenter,
            image_HWC[None],
            device=ready.hardware.device,
            context=ready.hardware.inference,
            num_classes=ready.segmenter.num_classes,
        )
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise OutOfMemory(
            f"out of memory in scoring one image on {ready.hardware.device}",
            got=first_words(error),
        ) from None
