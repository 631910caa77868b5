"""The loss of a model on a client's samples, without augmentation or training."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import nn

from fleetseg.data.augment import stacked
from fleetseg.data.sample import Pairs
from fleetseg.learning.batches import Batch
from fleetseg.learning.inputs import LocalInputs
from fleetseg.learning.supervision import SUPERVISION


def mean_loss(model: nn.Module, pairs: Pairs, inputs: LocalInputs) -> float:
    """Return the mean loss over all samples, with batches weighted by their number of images.

    The model is put in evaluation mode, in which norm layers use their running statistics. A batch
    without a labelled pixel is left out; the result is 0 if all batches are.
    """
    # Without the feature distance: losses on labels are compared, between models and clients.
    inputs = replace(inputs, distance=None)
    loss_of = SUPERVISION[inputs.training.supervision].make(inputs)
    size, hardware = inputs.training.batch_size, inputs.hardware
    total, images = 0.0, 0
    model.eval()
    with torch.no_grad(), hardware.exact():
        for start in range(0, len(pairs), size):
            chosen = [pairs[k] for k in range(start, min(start + size, len(pairs)))]
            images_NHWC = torch.from_numpy(np.stack([image for image, _ in chosen]))
            batch = Batch(images_NHWC, stacked([label for _, label in chosen]))
            loss = loss_of(model, batch.images_on(hardware), batch.labels_NHW)
            if loss is not None:
                total, images = total + len(chosen) * float(loss), images + len(chosen)
    return total / images if images else 0.0
