"""What the server knows when it draws a cohort or weighs it, and what it learns of a round.

Samplers and weights are pure functions of these; what they remember between rounds is a `Memory`,
part of the server's state and of every checkpoint.
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
"""Tables by the owner's names: a finite number for each client that has one, by the client's name.

So a client that is absent for long keeps its own. A table may be of something else (of rounds).
"""


@dataclass(frozen=True)
class Known:
    """What is known before a round begins."""

    enrolled: Mapping[str, Enrolment]  # who could be asked, or is asked; in order of their names
    round: int  # the round that begins, from 1
    settings: FederationConfig
    facts: Facts = field(default_factory=dict)  # of the fleet
    memory: Memory = field(default_factory=dict)  # of whom this is given to
    # How long a client's round takes, where times are simulated; real ones are no part of a result.
    seconds_of: Callable[[Enrolment], float] | None = None

    def seconds(self) -> dict[str, float]:
        """Return how long a round takes each client; empty where that is not known."""
        if self.seconds_of is None:
            return {}
        return {name: self.seconds_of(e) for name, e in self.enrolled.items()}


@dataclass(frozen=True)
class Accepted:
    """What is remembered of an update once it is folded."""

    client_id: str
    num_steps: int
    images_seen: int
    loss: float  # mean over the steps of its training
    measures: Mapping[str, float] = field(default_factory=dict)  # see `measures`


@dataclass(frozen=True)
class Outcome:
    """How a round went."""

    round: int
    asked: tuple[str, ...]
    accepted: tuple[Accepted, ...]  # in order of their names
    settings: FederationConfig


def forget(memory: Memory, outcome: Outcome) -> Memory:
    """Remember nothing."""
    return memory
