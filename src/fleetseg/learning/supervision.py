"""What a client minimises: where the loss of a step comes from.

A supervision is a `Supervision` in `SUPERVISION`; `make` is called once a round.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn

from fleetseg.data.labels import IGNORE
from fleetseg.learning.inputs import LocalInputs
from fleetseg.learning.losses import build_loss, segmentation_loss

StepLoss = Callable[[nn.Module, Tensor, Tensor], Tensor | None]
"""(model, images_NCHW on its device, labels_NHW on the CPU) -> the loss; None = take no step."""


@dataclass(frozen=True)
class Supervision:
    """How the loss of a step is made, and whether it takes a client's labels."""

    make: Callable[[LocalInputs], StepLoss]
    needs_labels: bool = True
    facts: tuple[str, ...] = ()  # what it takes of the fleet: see federation.fleet_facts


def _labels(inputs: LocalInputs) -> StepLoss:
    """Compare predictions with the client's own labels, by `training.loss`."""
    weights_C, hardware = inputs.class_weights_C, inputs.hardware
    on_device_C = None if weights_C is None else weights_C.to(hardware.device)
    loss_of = build_loss(inputs.training, on_device_C)

    def loss(model: nn.Module, images_NCHW: Tensor, labels_NHW: Tensor) -> Tensor | None:
        if not bool((labels_NHW != IGNORE).any()):
            return None
        with hardware.autocast():
            outputs = model(images_NCHW)
        there_NHW = labels_NHW.to(hardware.device)
        return segmentation_loss(outputs, there_NHW, loss_of, inputs.training.aux_weight)

    return loss


SUPERVISION: dict[str, Supervision] = {"labels": Supervision(_labels)}
