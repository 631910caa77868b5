"""What a client minimises: where the loss of a step comes from.

A supervision is a `Supervision` in `SUPERVISION`; `make` is called once a round.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn

from fleetseg.data.labels import IGNORE
from fleetseg.learning.inputs import LocalInputs
from fleetseg.learning.losses import build_loss, require_ids, segmentation_loss

StepLoss = Callable[[nn.Module, Tensor, Tensor], Tensor | None]
"""(model, images_NCHW on its device, labels_NHW uint8 on the CPU) -> the loss; None = no step."""


@dataclass(frozen=True)
class Supervision:
    """How the loss of a step is made, and whether it takes a client's labels."""

    make: Callable[[LocalInputs], StepLoss]
    needs_labels: bool = True
    facts: tuple[str, ...] = ()  # what it takes of the fleet: see federation.fleet_facts


def _labels(inputs: LocalInputs) -> StepLoss:
    """Compare predictions with the client's own labels, by `training.loss`.

    Labels are looked at here, on the CPU and once, so that no loss has to ask the device.
    """
    weights_C, hardware = inputs.class_weights_C, inputs.hardware
    on_device_C = None if weights_C is None else weights_C.to(hardware.device)
    loss_of = build_loss(inputs.training, on_device_C, check=False)

    def loss(model: nn.Module, images_NCHW: Tensor, labels_NHW: Tensor) -> Tensor | None:
        highest = _highest_id(labels_NHW)
        if highest is None:
            return None
        there_NHW = hardware.put(labels_NHW).long()
        with hardware.autocast():
            outputs = model(images_NCHW)
        main = outputs if isinstance(outputs, Tensor) else outputs[0]
        if highest >= main.shape[1]:
            require_ids(labels_NHW, main.shape[1])
        return segmentation_loss(outputs, there_NHW, loss_of, inputs.training.aux_weight)

    return loss


def _highest_id(labels_NHW: Tensor) -> int | None:
    """Return the highest id of a pixel that is not ignored; None if all are.

    One more than IGNORE is 0 in uint8, so that one pass finds it: 20 times faster than a mask.
    """
    highest = int((labels_NHW + (256 - IGNORE)).max()) - 1
    return None if highest < 0 else highest


SUPERVISION: dict[str, Supervision] = {"labels": Supervision(_labels)}
