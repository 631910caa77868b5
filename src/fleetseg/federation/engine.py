"""The interface between the server's loop and the engine that runs clients."""

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
"""A reply as an engine returns it: unpacked."""


@dataclass(frozen=True)
class Meter:
    """The bytes sent so far, as handed to the engine, and the time on the engine's clock."""

    bytes_down: int = 0
    bytes_up: int = 0
    seconds: float = 0.0

    def __add__(self, more: Meter) -> Meter:
        """Add two readings."""
        return Meter(
            self.bytes_down + more.bytes_down,
            self.bytes_up + more.bytes_up,
            self.seconds + more.seconds,
        )

    def __sub__(self, before: Meter) -> Meter:
        """Return the bytes and time since an earlier reading."""
        return Meter(
            self.bytes_down - before.bytes_down,
            self.bytes_up - before.bytes_up,
            self.seconds - before.seconds,
        )


class Engine(Protocol):
    """Transports messages; it makes no decisions about learning.

    Replies come as they arrive, in any order, at most one per client asked. The engine may reuse an
    update's tensors as soon as the next reply is requested.
    """

    def available(self) -> Mapping[str, Enrolment]:
        """Return every client that could be asked now, by name."""
        ...

    def ask(
        self, task: str, asks: Mapping[str, Broadcast], deadline_s: float = 0.0
    ) -> Iterator[Received]:
        """Have clients do a task of `tasks.CLIENT_TASKS`; deadline_s = 0 means no deadline."""
        ...

    def meter(self) -> Meter:
        """Read the bytes of models and updates so far, and the clock."""
        ...
