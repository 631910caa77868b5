"""A rule: options that have no effect under a condition, and why."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from fleetseg.config import Experiment


@dataclass(frozen=True)
class Facts:
    """Facts that decide whether an option has an effect."""

    experiment: Experiment
    scored: bool  # there is something to score on after a round
    over_network: bool = False  # clients are on other machines, whatever [engine] says
    own_net: bool = False  # the network is the caller's
    own_data: bool = False  # the samples are the caller's
    own_frames: bool = True  # clients have frames of their own to be scored on

    @property
    def on_a_fleet(self) -> bool:
        """Whether replies take real time to arrive."""
        return self.over_network or self.experiment.engine.kind == "fleet"


@dataclass(frozen=True)
class Rule:
    """Options that have no effect if `idle` is true, and why."""

    options: tuple[str, ...]
    idle: Callable[[Facts], bool]
    because: str


def only_with(choice: str, name: str, *options: str) -> Rule:
    """Make the rule for options that are read only if another option has a certain value.

    >>> only_with("federation.publishing", "swa", "federation.swa").because
    "federation.publishing is not 'swa'"
    """
    return Rule(
        options, lambda f: value_of(f.experiment, choice) != name, f"{choice} is not '{name}'"
    )


def value_of(experiment: Experiment, option: str) -> object:
    """Return the value of an option by its dotted name."""
    value: object = experiment
    for part in option.split("."):
        value = getattr(value, part)
    return value
