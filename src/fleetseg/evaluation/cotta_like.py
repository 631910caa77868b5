"""A teacher that averages a student which learns from it on test images; after CoTTA, not CoTTA.

Wang, Fink, Van Gool, Dai 2022, Continual Test-Time Domain Adaptation, CVPR, arXiv 2203.13591. The
student learns to predict what the teacher predicts (cross-entropy); the teacher is the exponential
average of students; where the model that was given is not sure of an image, the teacher's
predictions of several views are averaged; after each step every value of the student goes back to
the given model's with a small probability. What is scored is the teacher, before the step of the
batch. Deviations:

- by default each domain starts from the given model (`mode = "online"`); CoTTA never does
  (`mode = "continual"`: domains one after another, by name);
- views are horizontal flips at three sizes, 6 in all; theirs are 14, or 32 colour and shape
  changes on small pictures;
- whether an image is sure is said for each, of a batch; their small-picture code says it of the
  batch, their segmentation code has batches of one;
- batch norms take the statistics of each batch, of each view its own; the published segmentation
  network has none;
- all is computed at the network's own resolution, what is learned in float32.
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
    """Put each element of a value back to the source's with a probability; drawn on the CPU."""
    back = torch.rand(value.shape, generator=generator) < probability
    return torch.where(back.to(value.device), source, value)


def cross_entropy_to(logits_NCHW: Tensor, target_NCHW: Tensor) -> Tensor:
    """Mean over pixels of -sum q log p, with q the target's probabilities."""
    return -(target_NCHW * logits_NCHW.log_softmax(dim=1)).sum(dim=1).mean()


class CottaLike:
    """A student and its teacher, both starting as the model; see Reader."""

    def __init__(self, passes: Passes, settings: CottaLikeConfig) -> None:
        self._passes, self._settings = passes, settings
        self._source = {name: value.detach() for name, value in passes.model.named_parameters()}
        self._restart()

    def _restart(self) -> None:
        self.student, self.teacher = copied(self._source), copied(self._source)
        self._optimiser = optimiser_of(self.student, self._settings)
        self._generator = torch_generator(self._settings.seed, purpose="stochastic restore")

    def begin_domain(self, name: str) -> None:
        """Start from the model again, unless what was learned is to be kept."""
        if self._settings.mode != "continual":
            self._restart()

    def __call__(self, images_NHWC: Images_NHWC) -> Tensor:
        """Return what the teacher makes of a batch, and have the student learn from it.

        Logits of images of which the given model is sure, and probabilities of others, which the
        views' are means of; (N, C, h, w).
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
        """The given model's highest probabilities, mean over the pixels of each image (N)."""
        probs_NCHW = self._passes.scored({}, images_NHWC).softmax(dim=1)
        return probs_NCHW.amax(dim=1).mean(dim=(1, 2))

    def _mean_of_views(self, images_NHWC: Images_NHWC, plain_NCHW: Tensor) -> Tensor:
        """Mean of the teacher's probabilities for the images, flipped and at several sizes."""
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
            target_NCHW = target_NCHW.clone()  # made in inference, which gradients refuse
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
