"""The seam between the server's loop and wherever clients run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

from fleetseg.federation.messages import (
    Broadcast,
    Enrolment,
    Evaluation,
    Failure,
    NormReport,
    Update,
)

Received = Update | Evaluation | NormReport | Failure
"""A reply as it comes out of an engine: unpacked."""


@dataclass(frozen=True)
class Meter:
    """What has been sent so far, as it was handed over, and the time on the engine's clock."""

    bytes_down: int = 0
    bytes_up: int = 0
    seconds: float = 0.0

    def __add__(self, more: Meter) -> Meter:
        """Count both."""
        return Meter(
            self.bytes_down + more.bytes_down,
            self.bytes_up + more.bytes_up,
            self.seconds + more.seconds,
        )

    def __sub__(self, before: Meter) -> Meter:
        """What was sent, and how long it took, since an earlier reading."""
        return Meter(
            self.bytes_down - before.bytes_down,
            self.bytes_up - before.bytes_up,
            self.seconds - before.seconds,
        )


class Engine(Protocol):
    """Transports messages; it decides nothing about learning.

    Replies come as they arrive, in any order, at most one per client asked. An update's tensors may
    be reused by the engine as soon as the next reply is asked for.
    """

    def available(self) -> Mapping[str, Enrolment]:
        """Every client that could be asked now, by id."""
        ...

    def ask(
        self, task: str, asks: Mapping[str, Broadcast], deadline_s: float = 0.0
    ) -> Iterator[Received]:
        """Have each client do a task of `tasks.CLIENT_TASKS`; deadline_s = 0 means no deadline."""
        ...

    def meter(self) -> Meter:
        """Read the bytes of models and updates so far, and the clock."""
        ...
