"""What the server knows when it draws or weighs a cohort, and what it learns from a round.

Samplers and weights are pure functions of these; what they remember between rounds is a `Memory`,
which is part of the server's state and of every checkpoint.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from fleetseg.config import FederationConfig
from fleetseg.federation.messages import Enrolment
from fleetseg.learning.inputs import Facts

RECEIVED_LOSS, TRAINED_LOSS, CLUSTER = "received_loss", "trained_loss", "cluster"
"""Names of measures: see `measures`."""
Memory = Mapping[str, Mapping[str, float]]
"""Named tables of finite numbers, one for each client that has one, by the client's name.

So a client keeps its number through a long absence. A table may have other keys (rounds).
"""


@dataclass(frozen=True)
class Known:
    """What is known before a round begins."""

    enrolled: Mapping[str, Enrolment]  # clients that can be, or are, asked; sorted by name
    round: int  # the round that begins, from 1
    settings: FederationConfig
    facts: Facts = field(default_factory=dict)  # of the fleet
    memory: Memory = field(default_factory=dict)  # of the function that this is passed to
    # How long a client's round takes, if times are simulated; real times never affect a result.
    seconds_of: Callable[[Enrolment], float] | None = None

    def seconds(self) -> dict[str, float]:
        """Return how long a round takes each client; empty if not known."""
        if self.seconds_of is None:
            return {}
        return {name: self.seconds_of(e) for name, e in self.enrolled.items()}


@dataclass(frozen=True)
class Accepted:
    """What is remembered of an update once it is aggregated."""

    client_id: str
    num_steps: int
    images_seen: int
    loss: float  # mean over its training steps
    measures: Mapping[str, float] = field(default_factory=dict)  # see `measures`


@dataclass(frozen=True)
class Outcome:
    """How a round went."""

    round: int
    asked: tuple[str, ...]
    accepted: tuple[Accepted, ...]  # sorted by name
    settings: FederationConfig


def forget(memory: Memory, outcome: Outcome) -> Memory:
    """Remember nothing."""
    return memory
