"""Common code of test-image readers: passes of a model that leave it unchanged.

Readers that learn keep their own values for some of the model's parameters and run passes with
them; the model's parameters are never written. Shapes: N images, H x W pixels, C classes; h x w is
the resolution of the network's own output.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import torch
from torch import Tensor, nn

from fleetseg.config import AdaptationConfig
from fleetseg.errors import ConfigError
from fleetseg.evaluation.predict import Context, Images_NHWC, forward
from fleetseg.models.norm_statistics import (
    Statistics,
    batch_norms,
    layer_moments,
    lone_value,
    normalised,
)

Values = Mapping[str, Tensor]
"""Parameters by name, used instead of the model's own."""
View = Callable[[Tensor], Tensor]
"""A transform of a batch of images (N, 3, H, W) before the pass."""


OnChoice = Callable[[str, str], None]
"""Called with (domain, choice) for each image for which a choice is made."""


class Reader(Protocol):
    """Predicts test images in its own way, and may learn from them."""

    def begin_domain(self, name: str) -> None:
        """Announce that the following images belong to another domain."""

    def __call__(self, images_NHWC: Images_NHWC) -> Tensor:
        """Return the logits (N, C, h, w) of a batch."""


@dataclass(frozen=True)
class Passes:
    """Forward passes of a model in evaluation mode: dropout is off, auxiliary heads see nothing.

    Except in `plain`, each batch is normalised with its own statistics.
    """

    model: nn.Module
    num_classes: int
    device: torch.device | str = "cpu"
    context: Context = nullcontext
    on_choice: OnChoice = lambda domain, choice: None

    def plain(self, images_NHWC: Images_NHWC) -> Tensor:
        """Return logits without gradients, with the model's own statistics."""
        return self._logits({}, images_NHWC, self.context, None)

    def scored(self, values: Values, images_NHWC: Images_NHWC, view: View | None = None) -> Tensor:
        """Return logits without gradients, bit-identical to those scored with the norms "batch".

        Raises:
            DataError: a layer sees one value per channel.
        """
        with batch_statistics(self.model):
            return self._logits(values, images_NHWC, self.context, view)

    def learned(self, values: Values, images_NHWC: Images_NHWC) -> Tensor:
        """Return float32 logits with gradients to `values`; call inside `learning`.

        Raises:
            DataError: a layer sees one value per channel.
        """
        own = {name: value.detach() for name, value in self.model.named_parameters()}
        # Rounding of gradients depends on the weights' memory order, which differs between a run
        # and a loaded model: with one order, both learn the same.
        ordered = {
            name: value.clone(memory_format=torch.contiguous_format)
            for name, value in {**own, **values}.items()
        }
        return self._logits(ordered, images_NHWC, nullcontext, None)

    @contextmanager
    def learning(self) -> Iterator[None]:
        """Enable gradients, including those through each batch's statistics; all in float32."""
        in_float32 = torch.autocast(torch.device(self.device).type, enabled=False)
        with (
            torch.inference_mode(False),
            torch.enable_grad(),
            self.context(),
            in_float32,
            _without_running_statistics(self.model),
        ):
            yield

    def _logits(
        self, values: Values, images_NHWC: Images_NHWC, context: Context, view: View | None
    ) -> Tensor:
        def network(images_NCHW: Tensor) -> object:
            seen_NCHW = images_NCHW if view is None else view(images_NCHW)
            return torch.func.functional_call(self.model, dict(values), (seen_NCHW,))

        return forward(
            network,
            images_NHWC,
            device=self.device,
            context=context,
            num_classes=self.num_classes,
        )


def batch_statistics(model: nn.Module) -> AbstractContextManager[None]:
    """Make a model in evaluation mode normalise each batch with its own statistics.

    Raises:
        DataError: a layer sees one value per channel.
    """

    def choose(layer: str, features: Tensor) -> Statistics:
        count, mean_C, var_C = layer_moments(features)
        if count < 2:
            raise lone_value(layer)
        return mean_C, var_C

    return normalised(model, choose)


@contextmanager
def _without_running_statistics(model: nn.Module) -> Iterator[None]:
    """Remove running statistics from batch norms, so that torch uses those of the batch.

    Unlike with substituted statistics, gradients flow through these; and unlike in training mode,
    only the norms change.
    """
    names, held, hooks = ("running_mean", "running_var"), [], []

    def refuse_one_value(layer: str, module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        if inputs[0].numel() == inputs[0].shape[1]:
            raise lone_value(layer)

    try:
        for layer, module in batch_norms(model).items():
            held.append((module, [module._buffers[name] for name in names]))
            hooks.append(module.register_forward_pre_hook(partial(refuse_one_value, layer)))
            for name in names:
                module._buffers[name] = None
        yield
    finally:
        for hook in hooks:
            hook.remove()
        for module, buffers in held:
            for name, buffer in zip(names, buffers, strict=True):
                module._buffers[name] = buffer


def affine_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """Return the gains and biases of batch norms with running statistics, by name."""
    return {
        f"{layer}.{name}": parameter
        for layer, module in batch_norms(model).items()
        for name, parameter in module.named_parameters(recurse=False)
    }


def require_affine(model: nn.Module, where: str = "") -> None:
    """Refuse a model without gains and biases of batch norms.

    Raises:
        ConfigError: the model has none.
    """
    if not affine_parameters(model):
        raise ConfigError(
            "the network has no batch norms with gains and biases to adapt",
            where=where or None,
            got="norms = 'tent'",
            cure="Use norms = 'running'",
        )


def copied(parameters: Values) -> dict[str, Tensor]:
    """Copy parameters as values to learn: leaves that require gradients, outside inference mode."""
    with torch.inference_mode(False), torch.no_grad():
        copies = {name: value.detach().clone() for name, value in parameters.items()}
    return {name: value.requires_grad_() for name, value in copies.items()}


def optimiser_of(values: Values, settings: AdaptationConfig) -> torch.optim.Optimizer:
    """Build the optimiser of values to learn, with the defaults of both papers' code."""
    if settings.optimiser == "sgd":
        return torch.optim.SGD(values.values(), lr=settings.lr, momentum=0.9)
    return torch.optim.Adam(values.values(), lr=settings.lr, betas=(0.9, 0.999))


def step(optimiser: torch.optim.Optimizer, values: Values, loss: Tensor) -> None:
    """Take one step on values; values on which the loss does not depend stay unchanged."""
    learned = list(values.values())
    for value, grad in zip(
        learned, torch.autograd.grad(loss, learned, allow_unused=True), strict=True
    ):
        value.grad = grad
    optimiser.step()
