"""Train parts of a network in turn within a round while the rest is frozen.

FedRep trains a client's head on a frozen body, then the body under a frozen head; FedBABU never
trains the head. A frozen part is a fixed function of its input: it has no gradient and no optimiser
state (momentum and weight decay would move it even without a gradient), and its norm layers use
their running statistics as constants.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from fleetseg.config import PhaseConfig, TrainingConfig
from fleetseg.errors import ModelError
from fleetseg.learning.parameters import head_prefixes

_EVERYTHING = (PhaseConfig(),)


def phases(training: TrainingConfig, steps: int) -> list[tuple[str, int]]:
    """Divide a round's steps into phases (part, number of steps) of at least one step each.

    >>> head, body = PhaseConfig(learns="head", share=10), PhaseConfig(learns="body")
    >>> phases(TrainingConfig(phases=(head, body)), 22)
    [('head', 20), ('body', 2)]
    """
    planned = training.phases or _EVERYTHING
    total, passed, begin = sum(phase.share for phase in planned), 0.0, 0
    divided: list[tuple[str, int]] = []
    for number, phase in enumerate(planned, 1):
        passed += phase.share
        latest = steps - (len(planned) - number)  # leave a step for each later phase
        end = min(max(round(steps * passed / total), begin + 1), latest)
        divided.append((phase.learns, end - begin))
        begin = end
    return divided


def learns(part: str, training: TrainingConfig) -> bool:
    """Return whether any phase trains a part, "head" or "body"."""
    return any(phase.learns in ("all", part) for phase in training.phases or _EVERYTHING)


@contextmanager
def only(model: nn.Module, part: str) -> Iterator[None]:
    """Train only one part inside the block; afterwards restore what was trainable before.

    Raises:
        ModelError: the network has no such part.
    """
    if part == "all":
        yield
        return
    require_part(model, part)
    named = model.named_parameters()
    frozen = [p for name, p in named if p.requires_grad and not is_in(part, name, model)]
    try:
        for parameter in frozen:
            parameter.requires_grad_(False)
            parameter.grad = None  # a leftover gradient would still move it
        yield
    finally:
        for parameter in frozen:
            parameter.requires_grad_(True)


def require_part(model: nn.Module, part: str) -> None:
    """Refuse to train a part of a network that does not define its head.

    Raises:
        ModelError: no parameter, or every parameter, would be trained.
    """
    learn = {is_in(part, name, model) for name, _ in model.named_parameters()}
    if part != "all" and learn != {True, False}:
        raise ModelError(
            f"cannot train only the {part}: the network does not define its head",
            cure="Name its head's modules: wrap(net, num_classes, head_prefixes=[...])",
        )


def hold_norms(model: nn.Module, part: str) -> None:
    """Make norm layers outside a part use their running statistics unchanged."""
    if part == "all":
        return
    for name, module in model.named_modules():
        if isinstance(module, _NormBase) and module.track_running_stats:
            module.train(module.training and is_in(part, name, model))


def is_in(part: str, name: str, model: nn.Module) -> bool:
    """Return whether a module or tensor of this name belongs to a part of a network."""
    return part == "all" or f"{name}.".startswith(head_prefixes(model)) == (part == "head")
