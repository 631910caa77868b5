"""Test-time adaptation with a student and an averaging teacher; modelled on CoTTA, but not CoTTA.

Wang, Fink, Van Gool, Dai 2022, Continual Test-Time Domain Adaptation, CVPR, arXiv 2203.13591. The
student learns the teacher's predictions (cross-entropy); the teacher is the exponential moving
average of the student. If the given model is not confident about an image, the teacher's
predictions for several views are averaged. After each step, every element of the student is reset
to the given model's with a small probability. The teacher is scored, before the step on the batch.
Deviations:

- by default each domain starts from the given model (`mode = "online"`); CoTTA never does
  (`mode = "continual"`: domains one after another, by name);
- views are horizontal flips at three sizes, 6 in all; theirs are 14, or 32 colour and shape
  changes on small images;
- confidence is decided per image of a batch; their small-image code decides it per batch, their
  segmentation code has batches of one;
- batch norms use the statistics of each batch, separately for each view; the published segmentation
  network has no batch norms;
- everything is computed at the network's own resolution, and learning is in float32.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor
from torch.nn import functional

from fleetseg.config import CottaLikeConfig
from fleetseg.evaluation.adaptation import Passes, copied, optimiser_of, step
from fleetseg.evaluation.predict import Images_NHWC
from fleetseg.rng import torch_generator


def averaged(teacher: Tensor, student: Tensor, momentum: float) -> Tensor:
    """Move a teacher's value towards a student's: momentum x teacher + (1 - momentum) x student."""
    return teacher.lerp(student, 1 - momentum)


def restored(
    value: Tensor, source: Tensor, probability: float, generator: torch.Generator
) -> Tensor:
    """Reset each element of a value to the source's with a probability; drawn on the CPU."""
    back = torch.rand(value.shape, generator=generator) < probability
    return torch.where(back.to(value.device), source, value)


def cross_entropy_to(logits_NCHW: Tensor, target_NCHW: Tensor) -> Tensor:
    """Return the mean over pixels of -sum q log p, with q the target's probabilities."""
    return -(target_NCHW * logits_NCHW.log_softmax(dim=1)).sum(dim=1).mean()


class CottaLike:
    """A student and its teacher, both initialised from the model; see Reader."""

    def __init__(self, passes: Passes, settings: CottaLikeConfig) -> None:
        self._passes, self._settings = passes, settings
        self._source = {name: value.detach() for name, value in passes.model.named_parameters()}
        self._restart()

    def _restart(self) -> None:
        self.student, self.teacher = copied(self._source), copied(self._source)
        self._optimiser = optimiser_of(self.student, self._settings)
        self._generator = torch_generator(self._settings.seed, purpose="stochastic restore")

    def begin_domain(self, name: str) -> None:
        """Restart from the model, except in mode "continual"."""
        if self._settings.mode != "continual":
            self._restart()

    def __call__(self, images_NHWC: Images_NHWC) -> Tensor:
        """Return the teacher's prediction for a batch, and let the student learn from it.

        The result (N, C, h, w) holds logits of images about which the given model is confident, and
        for the others mean probabilities over the views.
        """
        seen_NCHW = self._passes.scored(self.teacher, images_NHWC)
        target_NCHW = seen_NCHW.softmax(dim=1)
        unsure_N = self._confidence(images_NHWC) < self._settings.confidence
        if bool(unsure_N.any()):
            unsure_N111 = unsure_N[:, None, None, None]
            means_NCHW = self._mean_of_views(images_NHWC, target_NCHW)
            target_NCHW = torch.where(unsure_N111, means_NCHW, target_NCHW)
            seen_NCHW = torch.where(unsure_N111, means_NCHW, seen_NCHW)
        self._learn(images_NHWC, target_NCHW)
        return seen_NCHW

    def _confidence(self, images_NHWC: Images_NHWC) -> Tensor:
        """Return the given model's highest probabilities, averaged over each image's pixels (N)."""
        probs_NCHW = self._passes.scored({}, images_NHWC).softmax(dim=1)
        return probs_NCHW.amax(dim=1).mean(dim=(1, 2))

    def _mean_of_views(self, images_NHWC: Images_NHWC, plain_NCHW: Tensor) -> Tensor:
        """Return the teacher's mean probabilities over flips and sizes of the images."""
        total_NCHW, count = torch.zeros_like(plain_NCHW), 0
        for scale in self._settings.scales:
            for flipped in (False, True):
                count += 1
                if scale == 1 and not flipped:
                    total_NCHW += plain_NCHW
                    continue
                view = partial(_viewed, scale=scale, flipped=flipped)
                logits_NCHW = self._passes.scored(self.teacher, images_NHWC, view)
                probs_NCHW = logits_NCHW.softmax(dim=1)
                total_NCHW += _back(probs_NCHW, plain_NCHW.shape[2:], flipped)
        return total_NCHW / count

    def _learn(self, images_NHWC: Images_NHWC, target_NCHW: Tensor) -> None:
        settings = self._settings
        with self._passes.learning():
            target_NCHW = target_NCHW.clone()  # an inference tensor cannot be used in autograd
            logits_NCHW = self._passes.learned(self.student, images_NHWC)
            step(self._optimiser, self.student, cross_entropy_to(logits_NCHW, target_NCHW))
        with torch.inference_mode(False), torch.no_grad():
            for name, value in self.student.items():
                teacher, source = self.teacher[name], self._source[name]
                teacher.copy_(averaged(teacher, value, settings.teacher_momentum))
                value.copy_(restored(value, source, settings.restore, self._generator))


def _viewed(images_NCHW: Tensor, scale: float, flipped: bool) -> Tensor:
    if scale != 1:
        size_hw = [max(1, round(side * scale)) for side in images_NCHW.shape[2:]]
        images_NCHW = functional.interpolate(
            images_NCHW, size_hw, mode="bilinear", align_corners=False, antialias=True
        )
    return images_NCHW.flip(3) if flipped else images_NCHW


def _back(probs_NCHW: Tensor, size_hw: torch.Size, flipped: bool) -> Tensor:
    probs_NCHW = probs_NCHW.flip(3) if flipped else probs_NCHW
    if probs_NCHW.shape[2:] == size_hw:
        return probs_NCHW
    return functional.interpolate(probs_NCHW, size_hw, mode="bilinear", align_corners=False)
