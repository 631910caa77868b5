"""Local training of a model on one vehicle during one round."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from fleetseg import rng
from fleetseg.config import TrainingConfig
from fleetseg.data.sample import Pairs
from fleetseg.learning.batches import Batch, loaded, own_images, steps_per_epoch
from fleetseg.learning.fedfa import FeatureNoise, perturbing
from fleetseg.learning.inputs import LocalInputs, RoundContext
from fleetseg.learning.mixstyle import mixing
from fleetseg.learning.objectives import OBJECTIVES, LocalCost, Objective, Vectors
from fleetseg.learning.parameters import Trainables, build_optimiser
from fleetseg.learning.parts import hold_norms, only, phases
from fleetseg.learning.scaling import (
    Correct,
    LossScale,
    fill_gradients,
    finish_gradients,
    take_step,
)
from fleetseg.learning.schedules import first_round_after
from fleetseg.learning.second_pass import FirstPass, second_pass
from fleetseg.learning.supervision import SUPERVISION, StepLoss, Supervision
from fleetseg.learning.travel import Travel, lr_at


@dataclass(frozen=True)
class LocalResult:
    """The cost and outcome of local training; the model itself is changed in place."""

    cost: LocalCost
    images_seen: int
    loss: float  # mean over steps
    optimiser_state: Mapping[str, Tensor]  # moments and loss scale, for clients that keep them
    state: Vectors  # kept by the objective
    extra_changes_T: Vectors  # changes of vectors sent beside the model
    skipped_steps: int = 0  # in fp16 training, for lack of finite gradients

    @property
    def num_steps(self) -> int:
        """Number of optimiser steps taken."""
        return self.cost.num_steps


def num_batches(num_images: int, training: TrainingConfig) -> int:
    """Return the number of batches of one round on `num_images` images."""
    count = training.local_steps or training.local_epochs * steps_per_epoch(num_images, training)
    return max(count, len(training.phases))


def num_steps(num_images: int, training: TrainingConfig) -> int:
    """Return the number of optimiser steps of one round on `num_images` images."""
    return num_batches(num_images, training) * SUPERVISION[training.supervision].uses(training)


def train_locally(
    model: nn.Module,
    pairs: Pairs,
    inputs: LocalInputs,
    shared: Trainables | None = None,
    objective: Objective | None = None,
) -> LocalResult:
    """Train `model` in place on `pairs` for one round.

    The optimiser is reset in each phase, unless the inputs restore its moments; the learning rate
    follows the schedule over global rounds. A batch without a labelled pixel takes no step. All
    random draws derive from the context, so the result is a pure function of the arguments (and of
    the number of training threads and the kind of GPU).

    `shared` are the parameters that the objective's vectors cover (default: all). `objective`
    defaults to that of the settings.
    """
    training, context, hardware = inputs.training, inputs.context, inputs.hardware
    kept, clip_norm = inputs.optimiser_state, training.clip_grad_norm
    scale = LossScale.of(hardware.precision, kept or {})
    objective = objective or OBJECTIVES[training.objective]
    shared = shared or Trainables([*model.parameters()], model)
    memo = objective.begin(inputs, shared)
    steps, losses = num_steps(len(pairs), training), list[Tensor]()
    images_seen, travel = 0, Travel(training)
    inputs, noise = _surveyed(inputs, model, pairs), FeatureNoise.of(model, inputs)
    hooks = _hooks(objective, memo, shared, _supervision(inputs).make(inputs))
    dropout = rng.torch_default(context.seed, context.round, context.client_id, "dropout")
    loading = _numbered(model, inputs, noise, _loading(pairs, inputs))
    with hardware.exact(), dropout, loading as numbered:
        for part, length in phases(training, steps):
            with only(model, part):
                learn = _Learn.of(model, part, inputs, scale, hooks)
                for step, batch in islice(numbered, length):
                    lr = _set_lr(learn.optimiser, training, context, step / steps)
                    images_seen += _new_images(step, batch, inputs)
                    loss = learn(batch.images_on(hardware), batch.labels_NHW, clip_norm)
                    if loss is not None:
                        losses.append(loss)
                        travel.step(lr)
    cost = LocalCost(len(losses), travel.total)
    state, changes = _end(objective, memo, shared, cost, noise)
    mean_loss = float(np.mean(torch.stack(losses).tolist())) if losses else 0.0
    moments = {} if kept is None else {**read_moments(learn.optimiser), **scale.state()}
    return LocalResult(cost, images_seen, mean_loss, moments, state, changes, scale.skipped_steps)


def _surveyed(inputs: LocalInputs, model: nn.Module, pairs: Pairs) -> LocalInputs:
    """Let the supervision survey the received model and all samples, if it does so."""
    survey = _supervision(inputs).survey
    return inputs if survey is None else replace(inputs, survey=survey(inputs, model, pairs))


@contextmanager
def _loading(pairs: Pairs, inputs: LocalInputs) -> Iterator[Iterator[Batch]]:
    """Load a round's batches, each as often as it is used.

    The supervision may choose what they are made of.
    """
    supervision, count = _supervision(inputs), num_batches(len(pairs), inputs.training)
    uses = supervision.uses(inputs.training)
    if supervision.view is not None:
        inputs, pairs = supervision.view(inputs, pairs)
    with loaded(pairs, count, inputs) as batches:
        yield (batch for batch in batches for _ in range(uses))


def _new_images(step: int, batch: Batch, inputs: LocalInputs) -> int:
    """Return how many of the client's own images a step is the first to see."""
    is_first = step % _supervision(inputs).uses(inputs.training) == 0
    return own_images(batch, inputs) if is_first else 0


def _supervision(inputs: LocalInputs) -> Supervision:
    return SUPERVISION[inputs.training.supervision]


@contextmanager
def _numbered(
    model: nn.Module,
    inputs: LocalInputs,
    noise: FeatureNoise | None,
    loading: AbstractContextManager[Iterator[Batch]],
) -> Iterator[Iterator[tuple[int, Batch]]]:
    """Number batches from 0; features are changed, if at all, while each is trained on."""
    with (
        loading as batches,
        mixing(model, inputs, batches) as mixed,
        perturbing(model, noise, mixed) as numbered,
    ):
        yield numbered


def _end(
    objective: Objective,
    memo: Any,
    shared: Trainables,
    cost: LocalCost,
    noise: FeatureNoise | None,
) -> tuple[Vectors, Vectors]:
    """Return what the objective keeps, and the changes of all vectors that are sent."""
    state, changes = objective.end(memo, shared, cost)
    return state, {**changes, **(noise.changes() if noise else {})}


def _set_mode(model: nn.Module, training: TrainingConfig, context: RoundContext) -> None:
    """Set training mode; in late rounds, batch norms use their running statistics as constants.

    A vehicle's batches differ from the fleet's: with batch statistics, features fit a normalisation
    that the averaged model does not have. Gains and biases continue to learn. FixBN, Zhong, Chen,
    Chao 2023, arXiv 2303.06530.
    """
    if not _trains_throughout(model):
        model.train()
    if context.round < first_round_after(training.freeze_bn_after, context.total_rounds):
        return
    for module in model.modules():
        if isinstance(module, _BatchNorm) and module.track_running_stats:
            module.eval()


def _trains_throughout(model: nn.Module) -> bool:
    """Return whether `train()` would change nothing; this check costs a tenth of its few ms."""
    return all(
        module.training and type(module).train is nn.Module.train for module in model.modules()
    )


def _set_lr(
    optimiser: torch.optim.Optimizer,
    training: TrainingConfig,
    context: RoundContext,
    progress: float,
) -> float:
    """Set the learning rate of a step; return that of the body."""
    lr = lr_at(training, context.round, progress, context.total_rounds)
    for group in optimiser.param_groups:
        group["lr"] = lr * group["lr_factor"]
    return lr


_Hooks = tuple[StepLoss, Correct | None, Callable[[], None] | None]
"""The loss of a step, the correction of its gradients, and the perturbation for a second pass."""


def _hooks(objective: Objective, memo: Any, shared: Trainables, loss_of: StepLoss) -> _Hooks:
    """Return the hooks by which an objective changes a step."""
    if objective.loss:
        loss_of = objective.loss(memo, loss_of)
    correct = partial(objective.correct, memo, shared) if objective.correct else None
    perturb = partial(objective.perturb, memo, shared) if objective.perturb else None
    return loss_of, correct, perturb


@dataclass(frozen=True)
class _Learn:
    """Takes a step on one batch.

    This is a separate call, so that the batch's graph is freed before the next forward pass.
    """

    model: nn.Module
    optimiser: torch.optim.Optimizer
    scale: LossScale
    loss_of: StepLoss
    correct: Correct | None
    perturb: Callable[[], None] | None

    @classmethod
    def of(
        cls,
        model: nn.Module,
        part: str,
        inputs: LocalInputs,
        scale: LossScale,
        hooks: _Hooks,
    ) -> _Learn:
        """Prepare a model for training one of its parts, with an optimiser for that part."""
        _set_mode(model, inputs.training, inputs.context)
        hold_norms(model, part)
        optimiser = build_optimiser(model, inputs.training)
        restore_moments(optimiser, inputs.optimiser_state or {})
        return cls(model, optimiser, scale, *hooks)

    def __call__(self, images: Tensor, labels: Tensor, clip_norm: float) -> Tensor | None:
        """Return the batch's loss, on its device; None if no step was taken."""
        if self.perturb is not None:
            return self._in_two_passes(images, labels, clip_norm, self.perturb)
        loss = self.loss_of(self.model, images, labels)
        if loss is None:
            return None
        taken = take_step(self.model, loss, self.optimiser, self.scale, clip_norm, self.correct)
        return loss.detach() if taken else None

    def _in_two_passes(
        self, images: Tensor, labels: Tensor, clip_norm: float, perturb: Callable[[], None]
    ) -> Tensor | None:
        """Step with gradients from the perturbed parameters; return the loss of the first pass."""
        first = FirstPass.of(self.model)
        loss = self._gradients(images, labels)
        if loss is None:
            return None
        with second_pass(self.model, first):
            perturb()
            if self._gradients(images, labels) is None:
                return None
        finish_gradients(self.model, clip_norm, self.correct)
        self.optimiser.step()
        return loss

    def _gradients(self, images: Tensor, labels: Tensor) -> Tensor | None:
        loss = self.loss_of(self.model, images, labels)
        if loss is None or not fill_gradients(self.model, loss, self.optimiser, self.scale):
            return None
        return loss.detach()


def read_moments(optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Return an optimiser's tensors by "<parameter number>/<moment>", in order of its groups."""
    parameters = [p for group in optimiser.param_groups for p in group["params"]]
    return {
        f"{number}/{name}": value.detach().cpu().contiguous()
        for number, parameter in enumerate(parameters)
        for name, value in optimiser.state[parameter].items()
        if isinstance(value, Tensor)
    }


def restore_moments(optimiser: torch.optim.Optimizer, kept: Mapping[str, Tensor]) -> None:
    """Restore what `read_moments` read from an optimiser of the same kind.

    torch decides where each tensor belongs: a fused optimiser needs its step counters on the
    parameters' device, others need them on the CPU.
    """
    parameters = [p for group in optimiser.param_groups for p in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in kept.items():
        number, slash, name = key.partition("/")
        if not slash:
            continue  # not a moment
        parameter = parameters[int(number)]
        moment = value.clone()
        if value.shape == parameter.shape:
            moment = torch.empty_like(parameter).copy_(value)  # in the parameter's memory format
        state.setdefault(int(number), {})[name] = moment
    optimiser.load_state_dict({**optimiser.state_dict(), "state": state})
