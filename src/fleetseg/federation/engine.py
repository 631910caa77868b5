"""The seam between the server's loop and wherever clients run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol

from fleetseg.federation.messages import Broadcast, Enrolment, Evaluation, Failure, Update


class Engine(Protocol):
    """Transports messages; it decides nothing about learning.

    Replies come as they arrive, in any order, at most one per client asked. An update's tensors may
    be reused by the engine as soon as the next reply is asked for.
    """

    def available(self) -> Mapping[str, Enrolment]:
        """Every client that could be asked now, by id."""
        ...

    def train(
        self, cohort: Sequence[str], broadcast: Broadcast, deadline_s: float
    ) -> Iterator[Update | Failure]:
        """Have each client of the cohort train; deadline_s = 0 means no deadline."""
        ...

    def evaluate(
        self, cohort: Sequence[str], broadcast: Broadcast, deadline_s: float
    ) -> Iterator[Evaluation | Failure]:
        """Have each client of the cohort score the model on its own samples."""
        ...
