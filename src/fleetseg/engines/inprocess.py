"""Runs clients one after another in this process: the simplest engine, best for debugging."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import TypeVar

from fleetseg.errors import DataError, OutOfMemory, StateMissing
from fleetseg.federation.client import Client, LocalRuntime
from fleetseg.federation.client_state import NO_STATE
from fleetseg.federation.engine import Meter, Received
from fleetseg.federation.messages import (
    Broadcast,
    Enrolment,
    Evaluation,
    Failure,
    NormReport,
    Packed,
    Update,
)
from fleetseg.federation.tasks import CLIENT_TASKS
from fleetseg.federation.wire import unpacked
from fleetseg.learning.hardware import threads
from fleetseg.memory import free, is_out_of_memory, out_of_memory_text

Result = TypeVar("Result")


class InProcessEngine:
    """Runs the cohort serially on one scratch model."""

    def __init__(self, clients: Mapping[str, Client], runtime: LocalRuntime) -> None:
        self._clients = clients
        # All updates are written to the same memory.
        self._runtime = replace(runtime, room=runtime.exchange.up.empty())
        self._down = self._up = 0

    def available(self) -> Mapping[str, Enrolment]:
        """Return every client; all are always available."""
        return {name: client.enrolment for name, client in self._clients.items()}

    def ask(
        self, task: str, asks: Mapping[str, Broadcast], deadline_s: float = 0.0
    ) -> Iterator[Received]:
        """Run client by client; the deadline is ignored, as nothing waits."""
        work, runtime = CLIENT_TASKS[task], self._runtime
        _, up = runtime.message_bytes
        for name, broadcast in asks.items():
            self._down += runtime.bytes_of(broadcast)
            with threads(runtime.experiment.engine.threads):
                reply = attempt(work, broadcast, self._clients[name], runtime)
            if isinstance(reply, Packed):
                assert runtime.codec is not None
                self._up += len(reply.data)
                reply = unpacked(reply, runtime.codec)
            elif isinstance(reply, Update):
                self._up += up
            elif isinstance(reply, Evaluation | NormReport):
                self._up += reply.num_bytes
            yield reply

    def meter(self) -> Meter:
        """See Engine: bytes of what would have been sent."""
        return Meter(self._down, self._up, time.monotonic())


def attempt(
    work: Callable[[Broadcast, Client, LocalRuntime], Result],
    broadcast: Broadcast,
    client: Client,
    runtime: LocalRuntime,
) -> Result | Failure:
    """Do a client's work; problems with its data or memory become failures, all else is a bug."""
    try:
        return work(broadcast, client, runtime)
    except DataError as error:
        return Failure(client.id, "abstained", "data", error.what)
    except StateMissing as error:
        return Failure(client.id, "lost", NO_STATE, error.what)
    except (OutOfMemory, RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        detail = out_of_memory_text(error, runtime.hardware.device)
    # Only here have the stack frames of the step, and with them its tensors, been released.
    runtime.model.zero_grad(set_to_none=True)
    free(runtime.hardware.device)
    return Failure(client.id, "lost", "out-of-memory", detail)
