"""What a client minimises: the source of the loss of a step.

A supervision is a `Supervision` in `SUPERVISION`; `make` is called once per round.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from fleetseg.config import TrainingConfig
from fleetseg.data.labels import IGNORE
from fleetseg.data.sample import Pairs
from fleetseg.learning.calibration import calibrated, logit_shift
from fleetseg.learning.discrepancy import discrepancy_loss, steps_on_batch
from fleetseg.learning.feature_distance import watching
from fleetseg.learning.inputs import LocalInputs
from fleetseg.learning.label_subset import subset_table, subset_weights, with_back
from fleetseg.learning.losses import build_loss, require_ids, segmentation_loss
from fleetseg.learning.pictures import Pictures
from fleetseg.learning.pixel_contrast import contrast_of, survey
from fleetseg.learning.resize import resized
from fleetseg.learning.self_training import (
    references_of,
    self_training_loss,
    teachers_of,
    view_without_labels,
)
from fleetseg.models.features import watched_features
from fleetseg.models.segmenter import Segmenter

StepLoss = Callable[[nn.Module, Tensor, Tensor], Tensor | None]
"""(model, images_NCHW on its device, labels_NHW uint8 on the CPU) -> loss, or None for no step."""


@dataclass(frozen=True)
class Supervision:
    """How the loss of a step is computed, and whether it uses a client's labels.

    Args:
        make: inputs of a round -> the loss of a step.
        needs_labels: clients without a labelled pixel do not take part.
        takes_erased: it distinguishes erased pixels from void ones: see data.erased.
        facts: facts about the fleet that it needs: see federation.fleet_facts.
        survey: (inputs, the received model, the client's samples) -> `survey` of the inputs that
            `make` receives. Omit if nothing is examined before the first step.
        guarded: its training is monitored, since it learns from images without labels: see
            runs.safety.
        self_taught: it learns from a model's own predictions; a client with some labelled images
            trains on those alone.
        references: names of models sent beside the global one: see federation.references.
        view: the inputs and samples from which batches are made. Omit for all samples, unchanged,
            with the client's own settings.
        uses: number of optimiser steps on each batch.
        carries_source: clients also train on the server's labelled samples: see data.carried.
        second_head: the network has a second head: see models.second_head.
    """

    make: Callable[[LocalInputs], StepLoss]
    needs_labels: bool = True
    takes_erased: bool = False
    facts: tuple[str, ...] = ()
    survey: Callable[[LocalInputs, nn.Module, Pairs], Any] | None = None
    guarded: bool = False
    self_taught: bool = False
    references: Callable[[TrainingConfig], tuple[str, ...]] = lambda training: ()
    view: Callable[[LocalInputs, Pairs], tuple[LocalInputs, Pairs]] | None = None
    uses: Callable[[TrainingConfig], int] = lambda training: 1
    carries_source: bool = False
    second_head: bool = False


def _labels(inputs: LocalInputs) -> StepLoss:
    """Compare predictions with the client's own labels, by `training.loss`.

    Label ids are checked here, once and on the CPU, so that no loss has to wait for the device.
    """
    training, device = inputs.training, inputs.hardware.device
    weights_C = inputs.class_weights_C
    loss_of = build_loss(training, _on(device, weights_C), check=False)
    shift_C = logit_shift(
        training.calibration, inputs.pixels_C, inputs.size_hw, training.calibration_tau
    )
    if shift_C is not None:
        loss_of = calibrated(loss_of, shift_C.to(device))

    def loss(model: nn.Module, images_NCHW: Tensor, labels_NHW: Tensor) -> Tensor | None:
        highest = _highest_id(labels_NHW)
        if highest is None:
            return None
        there_NHW = inputs.hardware.put(labels_NHW).long()
        with inputs.hardware.autocast():
            outputs = model(images_NCHW)
        main = outputs if isinstance(outputs, Tensor) else outputs[0]
        if highest >= main.shape[1]:
            require_ids(labels_NHW, main.shape[1])
        return segmentation_loss(outputs, there_NHW, loss_of, training.aux_weight)

    return _with_distance(inputs, loss)


def _label_subset(inputs: LocalInputs) -> StepLoss:
    """Compare with labels of some classes; erased pixels belong to any other (FedSeg's backCE).

    `training.loss` is computed over the classes that the client labels and all others as one. A
    client that labels all classes is supervised as with `labels`.
    """
    if inputs.labelled is None:
        return _labels(inputs)
    training, labelled = inputs.training, inputs.labelled
    weights_C = subset_weights(inputs.class_weights_C, labelled)
    loss_of = build_loss(training, _on(inputs.hardware.device, weights_C), check=False)
    table = subset_table(labelled)

    def compare(logits_NCHW: Tensor, labels_NHW: Tensor) -> Tensor:
        if len(labelled) < logits_NCHW.shape[1]:  # with_back is not linear, so resize first
            height, width = labels_NHW.shape[-2:]
            logits_NCHW = with_back(resized(logits_NCHW, (height, width)), labelled)
        return loss_of(logits_NCHW, labels_NHW)

    def loss(model: nn.Module, images_NCHW: Tensor, labels_NHW: Tensor) -> Tensor | None:
        kept_NHW = table[labels_NHW.long()]
        highest = _highest_id(kept_NHW)
        if highest is None:
            return None
        assert highest <= len(labelled), "labels of other classes are erased where data are opened"
        there_NHW = inputs.hardware.put(kept_NHW).long()
        with inputs.hardware.autocast():
            outputs = model(images_NCHW)
        return segmentation_loss(outputs, there_NHW, compare, training.aux_weight)

    return _with_distance(inputs, loss)


def _with_distance(inputs: LocalInputs, by_labels: StepLoss) -> StepLoss:
    """Add the feature distance on the labels' classes, if it is used."""
    distance = inputs.distance
    if distance is None:
        return by_labels

    def loss(model: nn.Module, images_NCHW: Tensor, labels_NHW: Tensor) -> Tensor | None:
        with watching(model, distance) as seen:
            value = by_labels(model, images_NCHW, labels_NHW)
        if value is None:
            return None
        there_NHW = inputs.hardware.put(labels_NHW)
        return value + distance.term(seen[-1], images_NCHW, there_NHW, inputs.hardware)

    return loss


def _pixel_contrast(inputs: LocalInputs) -> StepLoss:
    """Add the contrast of pixels to prototypes to the loss of `label subset`."""
    by_labels = _label_subset(inputs)
    if inputs.survey is None:
        return by_labels
    term, classifier = contrast_of(inputs, inputs.survey), inputs.survey.received.classifier

    def loss(model: nn.Module, images_NCHW: Tensor, labels_NHW: Tensor) -> Tensor | None:
        assert isinstance(model, Segmenter)
        with watched_features(model, classifier) as seen:
            value = by_labels(model, images_NCHW, labels_NHW)
        return None if value is None else value + term(seen[-1], images_NCHW, labels_NHW)

    return loss


def _self_training(inputs: LocalInputs) -> StepLoss:
    """Compare with labels if the client has some, else with a teacher's predictions."""
    if inputs.survey is None:
        return _labels(inputs)
    return self_training_loss(inputs, inputs.survey)


def _discrepancy(inputs: LocalInputs) -> StepLoss:
    """Compare with the labels of the server's images, and two classifiers on the client's own.

    The losses of calls go through the steps that are taken on each batch.
    """
    return discrepancy_loss(inputs, build_loss(inputs.training, check=False))


def _on(device: torch.device, weights_C: Tensor | None) -> Tensor | None:
    return None if weights_C is None else weights_C.to(device)


def _highest_id(labels_NHW: Tensor) -> int | None:
    """Return the highest id of a pixel that is not ignored; None if all are.

    IGNORE + 1 wraps to 0 in uint8, so one pass is enough: 20 times faster than a mask.
    """
    highest = int((labels_NHW + (256 - IGNORE)).max()) - 1
    return None if highest < 0 else highest


SUPERVISION: dict[str, Supervision] = {
    "labels": Supervision(_labels),
    "label subset": Supervision(_label_subset, takes_erased=True),
    "pixel contrast": Supervision(_pixel_contrast, takes_erased=True, survey=survey),
    "self_training": Supervision(
        _self_training,
        needs_labels=False,
        survey=teachers_of,
        guarded=True,
        self_taught=True,
        references=references_of,
        view=view_without_labels,
    ),
    "discrepancy": Supervision(
        _discrepancy,
        needs_labels=False,
        guarded=True,
        view=lambda inputs, pairs: (inputs, Pictures(pairs)),
        uses=steps_on_batch,
        carries_source=True,
        second_head=True,
    ),
}
