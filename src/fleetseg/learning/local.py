"""Local training: what happens to a model inside one vehicle during one round."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from fleetseg import rng
from fleetseg.config import TrainingConfig
from fleetseg.data.augment import Augment
from fleetseg.data.labels import IGNORE
from fleetseg.data.sample import Pairs
from fleetseg.learning.hardware import Hardware
from fleetseg.learning.losses import Loss, build_loss, segmentation_loss
from fleetseg.learning.parameters import build_optimiser
from fleetseg.learning.scaling import LossScale, take_step
from fleetseg.learning.schedules import lr_factor


@dataclass(frozen=True)
class RoundContext:
    """Where in a run a piece of local training stands: all that its randomness depends on."""

    seed: int
    round: int  # 1-based
    total_rounds: int
    client_id: str

    def generator(self, purpose: str) -> np.random.Generator:
        """Random numbers for one purpose of this client in this round."""
        return rng.generator(self.seed, self.round, self.client_id, purpose)


@dataclass(frozen=True)
class LocalResult:
    """What local training cost and how it went; the model is changed in place."""

    num_steps: int  # optimiser steps taken
    images_seen: int
    loss: float  # mean over steps
    optimiser_state: Mapping[str, Tensor]  # moments and loss scale, for clients that keep them
    skipped_steps: int = 0  # of fp16 training: no finite gradients


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
    model: nn.Module,
    pairs: Pairs,
    training: TrainingConfig,
    *,
    context: RoundContext,
    size_hw: tuple[int, int],
    hardware: Hardware,
    class_weights_C: Tensor | None = None,
    optimiser_state: Mapping[str, Tensor] | None = None,
) -> LocalResult:
    """Train `model` in place on `pairs` for one round.

    The optimiser starts afresh each round unless `optimiser_state` brings its moments back; the
    learning rate follows the schedule over global rounds. A batch without a labelled pixel takes
    no step. Dropout and augmentation draw from generators derived from `context`, so the result is
    a pure function of the arguments (and of the number of threads, and of the kind of GPU).
    """
    optimiser = build_optimiser(model, training)
    restore_moments(optimiser, optimiser_state or {})
    scale = LossScale.of(hardware.precision, optimiser_state or {})
    weights = None if class_weights_C is None else class_weights_C.to(hardware.device)
    loss_of = build_loss(training, weights)
    augment = Augment.from_config(training, size_hw)
    steps = num_steps(len(pairs), training)
    losses: list[float] = []
    images_seen = 0
    _set_mode(model, training, context)
    dropout = rng.torch_default(context.seed, context.round, context.client_id, "dropout")
    with hardware.exact(), dropout:
        for step, indices in zip(
            range(steps), batches(len(pairs), training, context), strict=False
        ):
            _set_lr(optimiser, training, context, step / steps)
            chosen = [pairs[int(i)] for i in indices]
            images_NCHW, labels_NHW = augment.batch(chosen, context.generator(f"augment-{step}"))
            images_seen += len(indices)
            if not bool((labels_NHW != IGNORE).any()):
                continue
            batch = images_NCHW, labels_NHW
            loss = _learn(model, batch, loss_of, optimiser, scale, training, hardware)
            losses += [] if loss is None else [loss]
    kept = {} if optimiser_state is None else {**read_moments(optimiser), **scale.state()}
    mean_loss = float(np.mean(losses or [0.0]))
    return LocalResult(len(losses), images_seen, mean_loss, kept, scale.skipped_steps)


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
) -> None:
    factor = lr_factor(
        training.schedule, context.round, progress, context.total_rounds, training.warmup_rounds
    )
    for group in optimiser.param_groups:
        group["lr"] = training.lr * factor * group["lr_factor"]


def _learn(
    model: nn.Module,
    batch: tuple[Tensor, Tensor],
    loss_of: Loss,
    optimiser: torch.optim.Optimizer,
    scale: LossScale,
    training: TrainingConfig,
    hardware: Hardware,
) -> float | None:
    """Take a step on one batch; returns its loss, or None if there was no step.

    A function of its own, so that this batch's graph is gone before the next forward pass.
    """
    images_NCHW, labels_NHW = batch
    with hardware.autocast():
        outputs = model(_on(images_NCHW, hardware))
    labels_NHW = labels_NHW.to(hardware.device)
    loss = segmentation_loss(outputs, labels_NHW, loss_of, training.aux_weight)
    return take_step(model, loss, optimiser, scale, training.clip_grad_norm)


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
