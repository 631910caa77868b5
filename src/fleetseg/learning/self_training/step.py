"""The loss of a step without labels: a teacher sees plain images, the student augmented ones.

A vehicle with labels does not use this: it trains with them, as with the supervision `labels`.
Suffixes: N images, C classes, H and W pixels.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from fleetseg.config import SelfTrainingConfig, TrainingConfig
from fleetseg.data.labels import IGNORE
from fleetseg.data.sample import Image_HWC, Pairs
from fleetseg.learning.batches import Batch
from fleetseg.learning.feature_distance import watching
from fleetseg.learning.inputs import LocalInputs
from fleetseg.learning.pictures import Pictures
from fleetseg.learning.resize import resized
from fleetseg.learning.self_training.pseudo_labels import PseudoLabels, pseudo_labels
from fleetseg.learning.self_training.rare_classes import Drawn, drawn_by_class
from fleetseg.learning.self_training.strong_view import Mix, draw_mix, strong_colours
from fleetseg.learning.self_training.terms import (
    distillation,
    entropy,
    max_square,
    pseudo_cross_entropy,
)


@dataclass(frozen=True)
class Teachers:
    """Frozen models in eval mode that provide the targets."""

    teacher: nn.Module
    first: nn.Module | None  # the initial model of the run; None = not used


def is_unlabelled(inputs: LocalInputs) -> bool:
    """Return whether a client has no labelled pixel, or is declared unlabelled."""
    return sum(inputs.pixels_C) == 0


def references_of(training: TrainingConfig) -> tuple[str, ...]:
    """Return the names of models sent beside the received one: see federation.references.

    Empty if the teacher is the received model itself, which costs no bytes.
    """
    settings = training.self_training
    received = settings.teacher == "round" and settings.every == 1
    first = settings.teacher == "fixed" or settings.distil > 0
    teacher = settings.teacher != "fixed" and not received
    return ("first",) * first + ("teacher",) * teacher


def teachers_of(inputs: LocalInputs, model: nn.Module, pairs: Pairs) -> Teachers | None:
    """Build the teachers of a round; None for a client with labels."""
    if not is_unlabelled(inputs):
        return None
    settings = inputs.training.self_training
    first = _frozen(model, inputs, "first") if "first" in inputs.references else None
    if settings.teacher == "fixed":
        return Teachers(first or _frozen(model, inputs), first)
    return Teachers(_frozen(model, inputs, "teacher"), first)


def _frozen(model: nn.Module, inputs: LocalInputs, name: str = "") -> nn.Module:
    """Copy the received model, and load the reference of this name into it, if there is one."""
    copied = copy.deepcopy(model)
    if name in inputs.references:
        inputs.references[name](copied)
    return copied.eval().requires_grad_(False)


def view_without_labels(inputs: LocalInputs, pairs: Pairs) -> tuple[LocalInputs, Pairs]:
    """Return inputs and pairs for batches without labels, and without jitter for the teacher."""
    if not is_unlabelled(inputs):
        return inputs, pairs
    plain = inputs.training.model_copy(update={"colour_jitter": 0.0})
    pictures: Pairs = Pictures(pairs)
    if inputs.training.self_training.rare_classes > 0:
        pictures = _by_rare_classes(inputs, pictures)
    return replace(inputs, training=plain), pictures


def _by_rare_classes(inputs: LocalInputs, pictures: Pairs) -> Drawn:
    """Draw a round's images by the classes that the teacher confidently sees in them."""
    settings = inputs.training.self_training
    counts_NC = np.stack([_seen_in(pictures[k][0], inputs) for k in range(len(pictures))])
    pixels, generator = inputs.size_hw[0] * inputs.size_hw[1], inputs.context.generator("rare")
    chosen = drawn_by_class(counts_NC, pixels, settings.rare_classes, generator)
    return Drawn(pictures, chosen)


def _seen_in(image_HWC: Image_HWC, inputs: LocalInputs) -> npt.NDArray[np.int64]:
    """Count an unaugmented image's pixels of each class that would be learnt (or are confident)."""
    settings, teacher = inputs.training.self_training, inputs.survey.teacher
    if settings.select == "quality":  # it weights whole images, so count confident pixels
        settings = settings.model_copy(update={"select": "threshold"})
    image_NHWC = torch.from_numpy(np.stack([image_HWC]))  # copy: a store's arrays are read-only
    with inputs.hardware.exact():
        images_NCHW = Batch(image_NHWC, torch.zeros(0)).images_on(inputs.hardware)
        probs_NCHW = _look(teacher, images_NCHW, inputs).softmax(dim=1)
    valid_NHW = torch.ones_like(probs_NCHW[:, 0], dtype=torch.bool)
    seen = pseudo_labels(probs_NCHW, valid_NHW, settings)
    ids = seen.ids_NHW[seen.weights_NHW > 0]
    counts_C: npt.NDArray[np.int64] = (
        torch.bincount(ids, minlength=probs_NCHW.shape[1]).cpu().numpy()
    )
    return counts_C


def self_training_loss(
    inputs: LocalInputs, teachers: Teachers
) -> Callable[[nn.Module, Tensor, Tensor], Tensor]:
    """Return the loss of a step: (model, images_NCHW, labels_NHW that mark the image area)."""
    settings, aux_weight = inputs.training.self_training, inputs.training.aux_weight

    def loss(model: nn.Module, images_NCHW: Tensor, labels_NHW: Tensor) -> Tensor:
        valid_NHW = inputs.hardware.put(labels_NHW) != IGNORE
        logits_NCHW = _look(teachers.teacher, images_NCHW, inputs)
        seen = pseudo_labels(logits_NCHW.softmax(dim=1), valid_NHW, settings)
        mix = draw_mix(seen.ids_NHW, valid_NHW, settings)
        old_NCHW = None
        if settings.distil > 0:
            same = teachers.first is None or teachers.first is teachers.teacher
            old_NCHW = logits_NCHW if same else _look(teachers.first, images_NCHW, inputs)
        target = _Target.mixed(seen, valid_NHW, old_NCHW, mix)
        with watching(model, inputs.distance) as features, inputs.hardware.autocast():
            changed_NCHW = strong_colours(mix(images_NCHW), settings)
            outputs = model(changed_NCHW)
        main, *others = [outputs] if isinstance(outputs, Tensor) else outputs
        size_hw = (valid_NHW.shape[1], valid_NHW.shape[2])
        total = target.compare(resized(main, size_hw), settings)
        for output in others if aux_weight > 0 else ():
            total = total + aux_weight * target.cross_entropy(resized(output, size_hw), settings)
        if inputs.distance is not None:
            kept_NHW = target.kept_ids()
            total = total + inputs.distance.term(
                features[-1], changed_NCHW, kept_NHW, inputs.hardware
            )
        return total

    return loss


@torch.no_grad()
def _look(model: nn.Module | None, images_NCHW: Tensor, inputs: LocalInputs) -> Tensor:
    """Return a frozen model's logits at the size of the images, float32."""
    assert model is not None
    with inputs.hardware.autocast():
        outputs = model(images_NCHW)
    main = outputs if isinstance(outputs, Tensor) else outputs[0]
    return resized(main, (images_NCHW.shape[2], images_NCHW.shape[3]))


@dataclass(frozen=True)
class _Target:
    """The target of the student's predictions, mixed in the same way as its images."""

    labels: PseudoLabels
    valid_NHW: Tensor
    old_NCHW: Tensor | None  # logits of the first model; None = not used

    @classmethod
    def mixed(
        cls, labels: PseudoLabels, valid_NHW: Tensor, old_NCHW: Tensor | None, mix: Mix
    ) -> _Target:
        mixed = PseudoLabels(mix(labels.ids_NHW), mix(labels.weights_NHW))
        return cls(mixed, mix(valid_NHW), None if old_NCHW is None else mix(old_NCHW))

    def kept_ids(self) -> Tensor:
        """Return the classes that are learnt; IGNORE elsewhere."""
        return self.labels.ids_NHW.where(self.labels.weights_NHW > 0, IGNORE)

    def cross_entropy(self, logits_NCHW: Tensor, settings: SelfTrainingConfig) -> Tensor:
        kept_only = settings.normalise == "kept" and settings.select != "quality"
        counted_NHW = self.labels.weights_NHW > 0 if kept_only else self.valid_NHW
        weights_NHW = settings.weight * self.labels.weights_NHW
        return pseudo_cross_entropy(
            logits_NCHW, self.labels.ids_NHW, weights_NHW, counted_NHW.sum()
        )

    def compare(self, logits_NCHW: Tensor, settings: SelfTrainingConfig) -> Tensor:
        total = self.cross_entropy(logits_NCHW, settings)
        if self.old_NCHW is not None:
            kept_NHW = self.labels.weights_NHW > 0
            total = total + settings.distil * distillation(
                logits_NCHW, self.old_NCHW, kept_NHW, self.valid_NHW, settings.distil_temperature
            )
        if settings.entropy > 0:
            total = total + settings.entropy * entropy(logits_NCHW, self.valid_NHW)
        if settings.max_square > 0:
            ratio = settings.max_square_ratio
            total = total + settings.max_square * max_square(logits_NCHW, self.valid_NHW, ratio)
        return total
