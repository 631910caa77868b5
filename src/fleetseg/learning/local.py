"""Local training: what happens to a model inside one vehicle during one round."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from itertools import islice

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from fleetseg import rng
from fleetseg.config import TrainingConfig
from fleetseg.data.sample import Pairs
from fleetseg.learning.batches import batches_per_epoch, loaded
from fleetseg.learning.inputs import LocalInputs, RoundContext
from fleetseg.learning.objectives import OBJECTIVES, LocalCost, Objective, Vectors
from fleetseg.learning.parameters import Trainables, build_optimiser
from fleetseg.learning.parts import hold_norms, only, phases
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
    steps = training.local_steps or training.local_epochs * batches_per_epoch(
        num_images, training.batch_size
    )
    return max(steps, len(training.phases))


def train_locally(
    model: nn.Module,
    pairs: Pairs,
    inputs: LocalInputs,
    shared: Trainables | None = None,
    objective: Objective | None = None,
) -> LocalResult:
    """Train `model` in place on `pairs` for one round.

    The optimiser starts afresh with each phase, unless the inputs bring its moments back; the rate
    follows the schedule over global rounds. A batch without a labelled pixel takes no step. All
    draws come from the context, so that the result is a pure function of the arguments (and of the
    number of threads that train, and of the kind of GPU).

    `shared` are the parameters that the objective's vectors are of; default all. `objective`:
    default that of the settings.
    """
    training, context, hardware = inputs.training, inputs.context, inputs.hardware
    kept, clip_norm = inputs.optimiser_state, training.clip_grad_norm
    scale = LossScale.of(hardware.precision, kept or {})
    objective = objective or OBJECTIVES[training.objective]
    shared = shared or Trainables([*model.parameters()])
    memo = objective.begin(inputs, shared)
    correct = partial(objective.correct, memo, shared) if objective.correct else None
    steps, losses = num_steps(len(pairs), training), list[Tensor]()
    images_seen, travel = 0, Travel(training)
    loss_of = SUPERVISION[training.supervision].make(inputs)
    dropout = rng.torch_default(context.seed, context.round, context.client_id, "dropout")
    with hardware.exact(), dropout, loaded(pairs, steps, inputs) as batches:
        numbered = enumerate(batches)
        for part, length in phases(training, steps):
            with only(model, part):
                learn = _Learn.of(model, part, inputs, loss_of, scale, correct)
                for step, batch in islice(numbered, length):
                    lr = _set_lr(learn.optimiser, training, context, step / steps)
                    images_seen += len(batch.labels_NHW)
                    loss = learn(batch.images_on(hardware), batch.labels_NHW, clip_norm)
                    if loss is not None:
                        losses.append(loss)
                        travel.step(lr)
    cost = LocalCost(len(losses), travel.total)
    state, changes_T = objective.end(memo, shared, cost)
    mean_loss = float(np.mean(torch.stack(losses).tolist())) if losses else 0.0
    moments = {} if kept is None else {**read_moments(learn.optimiser), **scale.state()}
    return LocalResult(cost, images_seen, mean_loss, moments, state, changes_T, scale.skipped_steps)


class Travel:
    """How far steps of SGD move a parameter whose gradient is always 1, down.

    With momentum, v <- momentum v + 1 and the parameter moves by lr v; Nesterov's by
    lr (1 + momentum v). For K equal steps without momentum: K lr.
    """

    def __init__(self, training: TrainingConfig) -> None:
        self.total = 0.0
        self._momentum = training.momentum if training.optimiser == "sgd" else 0.0
        self._nesterov, self._velocity = training.nesterov, 0.0

    def step(self, lr: float) -> None:
        """Count one step in."""
        self._velocity = self._momentum * self._velocity + 1
        ahead = 1 + self._momentum * self._velocity
        self.total += lr * (ahead if self._nesterov else self._velocity)


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

    @classmethod
    def of(
        cls,
        model: nn.Module,
        part: str,
        inputs: LocalInputs,
        loss_of: StepLoss,
        scale: LossScale,
        correct: Correct | None,
    ) -> _Learn:
        """Get a model ready to learn by its part that does, with an optimiser of that part."""
        _set_mode(model, inputs.training, inputs.context)
        hold_norms(model, part)
        optimiser = build_optimiser(model, inputs.training)
        restore_moments(optimiser, inputs.optimiser_state or {})
        return cls(model, loss_of, optimiser, scale, correct)

    def __call__(self, images: Tensor, labels: Tensor, clip_norm: float) -> Tensor | None:
        """Return the batch's loss, on its device; None if there was no step."""
        loss = self.loss_of(self.model, images, labels)
        if loss is None:
            return None
        taken = take_step(self.model, loss, self.optimiser, self.scale, clip_norm, self.correct)
        return loss.detach() if taken else None


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
