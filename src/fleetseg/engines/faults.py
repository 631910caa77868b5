"""Simulated drop-outs and stragglers on a virtual clock: an engine that wraps another.

Whether a client vanishes in a round, and how long it takes, is drawn from (seed, round, client), so
simulated faults can be repeated. No client trains for a reply that would not count.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from fleetseg import rng
from fleetseg.config import Experiment
from fleetseg.federation.cohort import size_of
from fleetseg.federation.engine import Engine, Meter, Received
from fleetseg.federation.messages import Broadcast, Enrolment, Failure, taking_part
from fleetseg.federation.personal import steps_beside
from fleetseg.learning.local import num_steps


class SimulatedFaults:
    """Wraps an engine; its meter's clock is virtual.

    `message_bytes` are the sizes (of a broadcast, of an update) that a link carries. They are also
    counted for a client with a fault: it was sent a broadcast, and a late one sends an update, too.
    """

    def __init__(
        self, engine: Engine, experiment: Experiment, message_bytes: tuple[int, int]
    ) -> None:
        self._engine = engine
        self._experiment = experiment
        self._down, self._up = message_bytes
        self._unsent = Meter()
        self._enrolled: dict[str, Enrolment] = {}  # every client that was ever available

    def available(self) -> Mapping[str, Enrolment]:
        """Return every client of the wrapped engine."""
        now = self._engine.available()
        self._enrolled.update(now)
        return now

    def ask(
        self, task: str, asks: Mapping[str, Broadcast], deadline_s: float = 0.0
    ) -> Iterator[Received]:
        """Lose some clients, delay some, and have the others train; other tasks have no faults."""
        if task != "train":
            yield from self._engine.ask(task, asks, deadline_s)
            return
        num_present = len(taking_part(self.available()))
        lost = [c for c, broadcast in asks.items() if self._vanishes(c, broadcast.round)]
        took_s = {c: self._duration_s(c, asks[c]) for c in asks if c not in lost}
        late = [c for c, seconds in took_s.items() if 0 < deadline_s < seconds]
        on_time = {c: asks[c] for c in took_s if c not in late}
        self._unsent = self._unsent + Meter(
            sum(asks[c].num_bytes(self._down) for c in (*lost, *late)), self._up * len(late), 0.0
        )
        yield from (Failure(c, "lost", "vanished") for c in lost)
        yield from (Failure(c, "late", "deadline", f"{took_s[c]:.0f} s virtual") for c in late)
        # With a deadline, the server waits until then for missing clients; without one, it notices
        # a lost client by its closed connection.
        waits_s = deadline_s if deadline_s > 0 and (late or lost) else 0.0
        target = size_of(self._experiment.federation.cohort, num_present)
        yield from self._first_come(task, on_time, took_s, waits_s, target)

    def _first_come(
        self,
        task: str,
        asks: Mapping[str, Broadcast],
        took_s: Mapping[str, float],
        waits_s: float,
        target: int,
    ) -> Iterator[Received]:
        """Have clients train in the order in which they would finish, until `target` updates.

        With over-selection, a round ends once enough updates are in. The virtual clock decides
        which those are, not the simulating machine's.
        """
        if self._experiment.federation.over_selection == 1 or target >= len(asks):
            self._wait(max([waits_s, *(took_s[c] for c in asks)]))
            yield from self._engine.ask(task, asks)
            return
        order = sorted(asks, key=lambda client: (took_s[client], client))
        groups = [order[:target], *([client] for client in order[target:])]
        asked = 0
        try:
            for group in groups:
                asked += len(group)
                yield from self._engine.ask(task, {client: asks[client] for client in group})
        finally:  # enough: clients that were not asked are still working
            enough = asked < len(order)
            self._wait(took_s[order[asked - 1]] if enough else max(waits_s, took_s[order[-1]]))
            unasked = sum(asks[client].num_bytes(self._down) for client in order[asked:])
            self._unsent = self._unsent + Meter(unasked, 0, 0.0)

    def _wait(self, seconds: float) -> None:
        self._unsent = self._unsent + Meter(0, 0, seconds)

    def meter(self) -> Meter:
        """See Engine; the time is virtual."""
        behind, unsent = self._engine.meter(), self._unsent
        return Meter(
            behind.bytes_down + unsent.bytes_down,
            behind.bytes_up + unsent.bytes_up,
            unsent.seconds,
        )

    def _vanishes(self, client: str, round_: int) -> bool:
        chance = rng.generator(self._experiment.seed, round_, client, "vanish").random()
        return bool(chance < self._experiment.federation.faults.dropout)

    def _duration_s(self, client: str, broadcast: Broadcast) -> float:
        num_bytes = broadcast.num_bytes(self._down) + self._up
        return virtual_seconds(self._experiment, num_bytes, self._enrolled[client])


def virtual_seconds(experiment: Experiment, num_bytes: int, enrolment: Enrolment) -> float:
    """Return how long a client's round takes, with `num_bytes` sent and received."""
    settings, training = experiment.federation.faults, experiment.training
    # Being slow is a property of the vehicle, not of the round.
    slow = rng.generator(experiment.seed, 0, enrolment.client_id, "slow").random()
    factor = settings.slowdown if slow < settings.stragglers else 1.0
    steps = num_steps(enrolment.num_images, training)
    steps += steps_beside(enrolment.num_images, training, experiment.personal)
    images = steps * training.batch_size
    link_s = num_bytes / 1e6 / settings.megabytes_per_s
    return factor * images * settings.seconds_per_image + link_s
