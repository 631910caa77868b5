"""Local training: what happens to a model inside one vehicle during one round."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from fleetseg import rng
from fleetseg.config import TrainingConfig
from fleetseg.data.augment import Augment
from fleetseg.data.sample import Pairs
from fleetseg.learning.hardware import Hardware
from fleetseg.learning.inputs import LocalInputs, RoundContext
from fleetseg.learning.objectives import OBJECTIVES, LocalCost, Vectors
from fleetseg.learning.parameters import Trainables, build_optimiser
from fleetseg.learning.scaling import Correct, LossScale, take_step
from fleetseg.learning.schedules import lr_factor
from fleetseg.learning.supervision import SUPERVISION, StepLoss


@dataclass(frozen=True)
class LocalResult:
    """What local training cost and how it went; the model is changed in place."""

    cost: LocalCost
    images_seen: int
    loss: float  # mean over steps
    optimiser_state: Mapping[str, Tensor]  # moments and loss scale, for clients that keep them
    state: Vectors  # what the objective keeps
    extra_changes_T: Vectors  # of what is sent beside the model
    skipped_steps: int = 0  # of fp16 training: no finite gradients

    @property
    def num_steps(self) -> int:
        """Optimiser steps taken."""
        return self.cost.num_steps


def num_steps(num_images: int, training: TrainingConfig) -> int:
    """Number of optimiser steps that one round takes on so many images."""
    if training.local_steps:
        return training.local_steps
    return training.local_epochs * batches_per_epoch(num_images, training.batch_size)


def batches_per_epoch(num_images: int, batch_size: int) -> int:
    """Number of batches that an epoch is cut into; their sizes differ by at most one.

    Batches hold at most `batch_size` images. Only with batches of two, an odd number of images has
    one batch of three: BatchNorm cannot train on one image where the feature map is 1 x 1.

    >>> [batches_per_epoch(n, 4) for n in (1, 4, 5)], batches_per_epoch(3, 2)
    ([1, 1, 2], 1)
    """
    count = math.ceil(num_images / batch_size)
    alone = batch_size > 1 and num_images > 1 and num_images // count < 2
    return num_images // 2 if alone else count


def train_locally(
    model: nn.Module, pairs: Pairs, inputs: LocalInputs, shared: Trainables | None = None
) -> LocalResult:
    """Train `model` in place on `pairs` for one round.

    The optimiser starts afresh each round unless the inputs bring its moments back; the learning
    rate follows the schedule over global rounds. A batch without a labelled pixel takes no step.
    Dropout and augmentation draw from generators derived from the context, so the result is a pure
    function of the arguments (and of the number of threads, and of the kind of GPU).

    `shared` are the parameters that the objective's vectors are of; default all.
    """
    training, context, hardware = inputs.training, inputs.context, inputs.hardware
    optimiser = build_optimiser(model, training)
    kept = inputs.optimiser_state
    restore_moments(optimiser, kept or {})
    scale = LossScale.of(hardware.precision, kept or {})
    objective, shared = OBJECTIVES[training.objective], shared or Trainables([*model.parameters()])
    memo = objective.begin(inputs, shared)
    correct = partial(objective.correct, memo, shared) if objective.correct else None
    steps = num_steps(len(pairs), training)
    losses: list[Tensor] = []
    images_seen, lr_sum = 0, 0.0
    _set_mode(model, training, context)
    learn = _Learn(model, SUPERVISION[training.supervision].make(inputs), optimiser, scale, correct)
    dropout = rng.torch_default(context.seed, context.round, context.client_id, "dropout")
    with hardware.exact(), dropout:
        for step, (images_NCHW, labels_NHW) in enumerate(_batches(pairs, steps, inputs)):
            lr = _set_lr(optimiser, training, context, step / steps)
            images_seen += len(images_NCHW)
            loss = learn(_on(images_NCHW, hardware), labels_NHW, training.clip_grad_norm)
            if loss is not None:
                losses.append(loss)
                lr_sum += lr
    cost = LocalCost(len(losses), lr_sum)
    state, changes_T = objective.end(memo, shared, cost)
    mean_loss = float(np.mean(torch.stack(losses).tolist())) if losses else 0.0
    moments = {} if kept is None else {**read_moments(optimiser), **scale.state()}
    return LocalResult(cost, images_seen, mean_loss, moments, state, changes_T, scale.skipped_steps)


def _batches(pairs: Pairs, steps: int, inputs: LocalInputs) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the augmented batches of a round."""
    augment = Augment.from_config(inputs.training, inputs.size_hw)
    drawn = batches(len(pairs), inputs.training, inputs.context)
    for step, indices in zip(range(steps), drawn, strict=False):
        chosen = [pairs[int(i)] for i in indices]
        yield augment.batch(chosen, inputs.context.generator(f"augment-{step}"))


def batches(
    num_images: int, training: TrainingConfig, context: RoundContext
) -> Iterator[np.ndarray[tuple[int], np.dtype[np.intp]]]:
    """Yield a round's index batches, epoch after epoch without end; every epoch is shuffled anew.

    With `local_epochs`, a round starts an epoch of its own. With `local_steps`, a round goes on in
    the epoch where the client's round before would have ended, so that after any number of rounds
    no image was seen more than once more often than another. The image of a client that has only
    one is taken twice, for BatchNorm.
    """
    count = batches_per_epoch(num_images, training.batch_size)
    epoch, start = divmod((context.round - 1) * training.local_steps, count)
    round_ = 0 if training.local_steps else context.round
    while True:
        generator = rng.generator(context.seed, round_, context.client_id, f"shuffle-{epoch}")
        for part in np.array_split(generator.permutation(num_images), count)[start:]:
            yield np.repeat(part, 2) if num_images == 1 else part
        epoch, start = epoch + 1, 0


def _set_mode(model: nn.Module, training: TrainingConfig, context: RoundContext) -> None:
    """Train; in late rounds with batch norms that take their running statistics as constants.

    A vehicle's batches are not the fleet's: trained on their own statistics, features fit a
    normalisation that the averaged model does not have. Gains and biases go on learning. FixBN,
    Zhong, Chen, Chao 2023, arXiv 2303.06530.
    """
    model.train()
    # The allowance is for products such as 0.58 * 50 = 28.999999999999996.
    if context.round <= training.freeze_bn_after * context.total_rounds + 1e-9:
        return
    for module in model.modules():
        if isinstance(module, _BatchNorm) and module.track_running_stats:
            module.eval()


def _set_lr(
    optimiser: torch.optim.Optimizer,
    training: TrainingConfig,
    context: RoundContext,
    progress: float,
) -> float:
    """Set the learning rate of a step; returns that of the body."""
    factor = lr_factor(
        training.schedule, context.round, progress, context.total_rounds, training.warmup_rounds
    )
    for group in optimiser.param_groups:
        group["lr"] = training.lr * factor * group["lr_factor"]
    return training.lr * factor


@dataclass(frozen=True)
class _Learn:
    """Takes a step on one batch.

    A call of its own, so that this batch's graph is gone before the next forward pass.
    """

    model: nn.Module
    loss_of: StepLoss
    optimiser: torch.optim.Optimizer
    scale: LossScale
    correct: Correct | None

    def __call__(self, images: Tensor, labels: Tensor, clip_norm: float) -> Tensor | None:
        """Return the batch's loss, on its device; None if there was no step."""
        loss = self.loss_of(self.model, images, labels)
        if loss is None:
            return None
        taken = take_step(self.model, loss, self.optimiser, self.scale, clip_norm, self.correct)
        return loss.detach() if taken else None


def _on(images_NCHW: Tensor, hardware: Hardware) -> Tensor:
    images = images_NCHW.to(hardware.device, memory_format=hardware.memory_format)
    return images if images.is_floating_point() else images.float().div_(255)


def read_moments(optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Name an optimiser's tensors "<parameter number>/<moment>", in the order of its groups."""
    parameters = [p for group in optimiser.param_groups for p in group["params"]]
    return {
        f"{number}/{name}": value.detach().cpu().contiguous()
        for number, parameter in enumerate(parameters)
        for name, value in optimiser.state[parameter].items()
        if isinstance(value, Tensor)
    }


def restore_moments(optimiser: torch.optim.Optimizer, kept: Mapping[str, Tensor]) -> None:
    """Give an optimiser back what `read_moments` took from its like.

    Where each tensor belongs is torch's to say: a fused optimiser wants its step counters on the
    parameters' device, others want them on the CPU.
    """
    parameters = [p for group in optimiser.param_groups for p in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in kept.items():
        number, slash, name = key.partition("/")
        if not slash:
            continue  # not a parameter's
        parameter = parameters[int(number)]
        moment = value.clone()
        if value.shape == parameter.shape:
            moment = torch.empty_like(parameter).copy_(value)  # in the parameter's memory format
        state.setdefault(int(number), {})[name] = moment
    optimiser.load_state_dict({**optimiser.state_dict(), "state": state})
