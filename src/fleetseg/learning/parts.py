"""Parts of a network that learn while the rest stands still, one after another in a round.

FedRep trains a client's head on a body that stands, then the body under a head that stands; FedBABU
never trains the head. What stands is a fixed function of its input: no gradient, nothing of the
optimiser's (momentum and weight decay would move it without one), and norm layers that take their
running statistics as constants.
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
    """Divide a round's steps: what learns, and for how many steps; each phase has one at least.

    >>> head, body = PhaseConfig(learns="head", share=10), PhaseConfig(learns="body")
    >>> phases(TrainingConfig(phases=(head, body)), 22)
    [('head', 20), ('body', 2)]
    """
    planned = training.phases or _EVERYTHING
    total, passed, begin = sum(phase.share for phase in planned), 0.0, 0
    divided: list[tuple[str, int]] = []
    for number, phase in enumerate(planned, 1):
        passed += phase.share
        latest = steps - (len(planned) - number)  # a step for each that follows
        end = min(max(round(steps * passed / total), begin + 1), latest)
        divided.append((phase.learns, end - begin))
        begin = end
    return divided


def learns(part: str, training: TrainingConfig) -> bool:
    """Say whether any phase trains a part, "head" or "body"."""
    return any(phase.learns in ("all", part) for phase in training.phases or _EVERYTHING)


@contextmanager
def only(model: nn.Module, part: str) -> Iterator[None]:
    """Let nothing but a part learn; afterwards all that did before may learn again.

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
            parameter.grad = None  # an old one would go on moving it
        yield
    finally:
        for parameter in frozen:
            parameter.requires_grad_(True)


def require_part(model: nn.Module, part: str) -> None:
    """Refuse to train a part of a network that does not say what its head is.

    Raises:
        ModelError: no parameter, or every one, would learn.
    """
    learn = {is_in(part, name, model) for name, _ in model.named_parameters()}
    if part != "all" and learn != {True, False}:
        raise ModelError(
            f"cannot train the {part} alone of a network that does not say what its head is",
            cure="Name its head's modules: wrap(net, num_classes, head_prefixes=[...])",
        )


def hold_norms(model: nn.Module, part: str) -> None:
    """Let norm layers outside of a part take their running statistics as they are."""
    if part == "all":
        return
    for name, module in model.named_modules():
        if isinstance(module, _NormBase) and module.track_running_stats:
            module.train(module.training and is_in(part, name, model))


def is_in(part: str, name: str, model: nn.Module) -> bool:
    """Say whether a module or a tensor, by its name, belongs to a part of a network."""
    return part == "all" or f"{name}.".startswith(head_prefixes(model)) == (part == "head")
