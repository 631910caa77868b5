"""Clients one after another in this process: simplest, and the one to debug with."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import TypeVar

from fleetseg.errors import DataError, OutOfMemory
from fleetseg.federation.client import Client, LocalRuntime, client_evaluate, client_update
from fleetseg.federation.messages import Broadcast, Enrolment, Evaluation, Failure, Update
from fleetseg.learning.hardware import threads
from fleetseg.memory import free, is_out_of_memory, told

Answer = TypeVar("Answer", Update, Evaluation, LocalRuntime)


class InProcessEngine:
    """Runs the cohort serially on one scratch model."""

    def __init__(self, clients: Mapping[str, Client], runtime: LocalRuntime) -> None:
        self._clients = clients
        self._bench = runtime
        self._change = runtime.layout.empty()  # reused by every update

    def available(self) -> Mapping[str, Enrolment]:
        """Every client, always."""
        return {name: client.enrolment for name, client in self._clients.items()}

    def train(
        self, cohort: Sequence[str], broadcast: Broadcast, deadline_s: float
    ) -> Iterator[Update | Failure]:
        """Train client by client; a deadline means nothing where nobody waits."""
        return self._each(cohort, broadcast, partial(client_update, into=self._change))

    def evaluate(
        self, cohort: Sequence[str], broadcast: Broadcast, deadline_s: float
    ) -> Iterator[Evaluation | Failure]:
        """Score client by client."""
        return self._each(cohort, broadcast, client_evaluate)

    def _each(
        self,
        cohort: Sequence[str],
        broadcast: Broadcast,
        work: Callable[[Broadcast, Client, LocalRuntime], Answer | Failure],
    ) -> Iterator[Answer | Failure]:
        for name in cohort:
            with threads(self._bench.experiment.engine.threads):
                reply = attempt(work, broadcast, self._clients[name], self._bench)
            yield reply


def attempt(
    work: Callable[[Broadcast, Client, LocalRuntime], Answer | Failure],
    broadcast: Broadcast,
    client: Client,
    runtime: LocalRuntime,
) -> Answer | Failure:
    """Do a client's work; trouble with its data or its size is its own, all else is a bug."""
    try:
        return work(broadcast, client, runtime)
    except DataError as error:
        return Failure(client.id, "abstained", "data", error.what)
    except (OutOfMemory, RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        detail = told(error, runtime.hardware.device)
    # The frames of the step, and with them its tensors, are gone only here.
    runtime.model.zero_grad(set_to_none=True)
    free(runtime.hardware.device)
    return Failure(client.id, "lost", "out-of-memory", detail)
