"""Maximum classifier discrepancy (MCD): two classifiers show where images are unfamiliar.

Saito, Watanabe, Ushiku, Harada 2018, Maximum Classifier Discrepancy for Unsupervised Domain
Adaptation, arXiv 1712.02560, section 3. Both classifiers learn the labels of source images, and
are to differ on target images, where the extractor makes them agree. As in the authors' code, a
batch of as many source as target images takes 2 + n steps, one after another:

    A  everything       L_1 + L_2, the losses of both heads on the source images
    B  the two heads    L_1 + L_2 - d, with d their discrepancy on the target images
    C  the extractor    d, n times

A parameter that a step does not train has no gradient, so neither momentum nor weight decay move
it. Norm layers train with the statistics of each pass, which are of one domain, and all passes
count in their running statistics.

LADD's federated MCD (Shenaj et al. 2023, arXiv 2210.02326) takes d of the *source* images in its
code, and never passes a target image through the network; here it is of the client's own images.

Shapes: N images of each domain, C classes, H and W pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import cycle

from torch import Tensor, nn

from fleetseg.config import TrainingConfig
from fleetseg.data.labels import IGNORE
from fleetseg.errors import ConfigError
from fleetseg.learning.inputs import LocalInputs
from fleetseg.learning.losses import Loss, segmentation_loss
from fleetseg.learning.resize import resized
from fleetseg.models.second_head import both_heads, head_parameters
from fleetseg.models.segmenter import Segmenter


def steps_on_batch(training: TrainingConfig) -> int:
    """Return the number of optimiser steps on each batch: A, B, and C so often as configured."""
    return 2 + training.discrepancy.extractor_steps


def discrepancy(one_NCHW: Tensor, other_NCHW: Tensor, valid_NHW: Tensor) -> Tensor:
    """Mean absolute difference of two heads' probabilities, over classes and valid pixels.

    Section 3.2; `Diff2d` in the authors' code. The arguments are logits.
    """
    gaps_NHW = (one_NCHW.softmax(dim=1) - other_NCHW.softmax(dim=1)).abs().mean(dim=1)
    return (gaps_NHW * valid_NHW).sum() / valid_NHW.sum().clamp(min=1)


@dataclass(frozen=True)
class _Work:
    """A network, a batch for it, and how they are compared."""

    model: Segmenter
    inputs: LocalInputs
    loss_of: Loss
    own_NCHW: Tensor
    own_marks_NHW: Tensor  # on the CPU; IGNORE outside the images
    source_NCHW: Tensor
    source_NHW: Tensor  # on the CPU

    def by_labels(self) -> Tensor | None:
        """Return the loss of both heads on the source images; None without a labelled pixel."""
        if bool((self.source_NHW == IGNORE).all()):
            return None
        labels_NHW = self.inputs.hardware.put(self.source_NHW).long()
        main, second, *others = self._outputs(self.source_NCHW)
        aux_weight = self.inputs.training.aux_weight
        total = segmentation_loss((main, *others), labels_NHW, self.loss_of, aux_weight)
        return total + self.loss_of(second, labels_NHW)

    def gap(self) -> Tensor:
        """Return the discrepancy of the heads on the client's own images."""
        valid_NHW = self.inputs.hardware.put(self.own_marks_NHW) != IGNORE
        size_hw = (valid_NHW.shape[1], valid_NHW.shape[2])
        one, other, *_ = self._outputs(self.own_NCHW)
        return discrepancy(resized(one, size_hw), resized(other, size_hw), valid_NHW)

    def _outputs(self, images_NCHW: Tensor) -> tuple[Tensor, ...]:
        with both_heads(self.model), self.inputs.hardware.autocast():
            outputs: Tensor | tuple[Tensor, ...] = self.model(images_NCHW)
        assert not isinstance(outputs, Tensor), "in training mode there are several"
        return outputs


Step = Callable[[_Work], Tensor | None]


def _train_all(work: _Work) -> Tensor | None:
    return work.by_labels()


def _train_heads(work: _Work) -> Tensor | None:
    heads = {id(parameter) for parameter in head_parameters(work.model)}
    with _constant(p for p in work.model.parameters() if id(p) not in heads):
        loss = work.by_labels()
        return None if loss is None else loss - work.gap()


def _train_extractor(work: _Work) -> Tensor | None:
    with _constant(head_parameters(work.model)):
        return work.gap()


@contextmanager
def _constant(parameters: Iterable[nn.Parameter]) -> Iterator[None]:
    """Treat parameters as constants in graphs that are built inside the block."""
    learning = [parameter for parameter in parameters if parameter.requires_grad]
    try:
        for parameter in learning:
            parameter.requires_grad_(False)
        yield
    finally:
        for parameter in learning:
            parameter.requires_grad_(True)


def discrepancy_loss(
    inputs: LocalInputs, loss_of: Loss
) -> Callable[[nn.Module, Tensor, Tensor], Tensor | None]:
    """Return the losses of a round's steps: each call is the next step, from A of the first batch.

    A batch holds the client's own images, then as many source images; the labels of the own ones
    mark where the images are. `loss_of` compares with the labels of the source. Steps A and B are
    not taken on source images without a labelled pixel.

    Raises:
        ConfigError: the client carries no source.
    """
    if inputs.source is None:
        raise ConfigError(
            "training.supervision = 'discrepancy' needs the server's labelled images, and this "
            "vehicle carries none",
            cure="Train where they are at hand: engine.kind = 'inprocess' or 'workers'",
        )
    extractor = [_train_extractor] * inputs.training.discrepancy.extractor_steps
    steps: Iterator[Step] = cycle([_train_all, _train_heads, *extractor])

    def loss(model: nn.Module, images_NCHW: Tensor, labels_NHW: Tensor) -> Tensor | None:
        assert isinstance(model, Segmenter)
        own_NCHW, source_NCHW = images_NCHW.chunk(2)
        marks_NHW, source_NHW = labels_NHW.chunk(2)
        step = next(steps)
        return step(_Work(model, inputs, loss_of, own_NCHW, marks_NHW, source_NCHW, source_NHW))

    return loss
