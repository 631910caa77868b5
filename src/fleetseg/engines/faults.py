"""Trouble on a virtual clock: an engine in front of another that loses and delays clients.

Whether a client vanishes in a round, and how long it takes, is drawn from (seed, round, client), so
a simulated bad day can be repeated. Nobody trains for a reply that would not count.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from fleetseg import rng
from fleetseg.config import Experiment
from fleetseg.federation.engine import Engine
from fleetseg.federation.messages import Broadcast, Enrolment, Evaluation, Failure, Update
from fleetseg.learning.local import num_steps


class SimulatedFaults:
    """Wraps an engine; `now_s` is the virtual time that has passed."""

    def __init__(self, engine: Engine, experiment: Experiment, message_bytes: int) -> None:
        self._engine = engine
        self._experiment = experiment
        self._megabytes = message_bytes / 1e6
        self.now_s = 0.0
        # Bytes are those that the engine behind counts, where it does: who vanishes sends none.
        self.traffic: Callable[[], tuple[int, int]] | None = getattr(engine, "traffic", None)

    def available(self) -> Mapping[str, Enrolment]:
        """Every client of the engine behind."""
        return self._engine.available()

    def train(
        self, cohort: Sequence[str], broadcast: Broadcast, deadline_s: float
    ) -> Iterator[Update | Failure]:
        """Lose some, delay some, and have the others train."""
        enrolled = self.available()
        lost = [c for c in cohort if self._vanishes(c, broadcast.round)]
        took_s = {c: self._duration_s(enrolled[c]) for c in cohort if c not in lost}
        late = [c for c, seconds in took_s.items() if 0 < deadline_s < seconds]
        on_time = [c for c in took_s if c not in late]
        waited_s = max([took_s[c] for c in on_time], default=0.0)
        # With a deadline the server waits it out for whoever is missing; without, it sees a lost
        # client's closed connection.
        self.now_s += deadline_s if deadline_s > 0 and (late or lost) else waited_s
        yield from (Failure(c, "lost", "vanished") for c in lost)
        yield from (Failure(c, "late", "deadline", f"{took_s[c]:.0f} s virtual") for c in late)
        yield from self._engine.train(on_time, broadcast, 0.0)

    def evaluate(
        self, cohort: Sequence[str], broadcast: Broadcast, deadline_s: float
    ) -> Iterator[Evaluation | Failure]:
        """Scoring is not disturbed."""
        return self._engine.evaluate(cohort, broadcast, deadline_s)

    def _vanishes(self, client: str, round_: int) -> bool:
        chance = rng.generator(self._experiment.seed, round_, client, "vanish").random()
        return bool(chance < self._experiment.federation.faults.dropout)

    def _duration_s(self, enrolment: Enrolment) -> float:
        settings = self._experiment.federation.faults
        training = self._experiment.training
        # Who is slow is a property of the vehicle, not of the round.
        slow = rng.generator(self._experiment.seed, 0, enrolment.client_id, "slow").random()
        factor = settings.slowdown if slow < settings.stragglers else 1.0
        images = num_steps(enrolment.num_images, training) * training.batch_size
        link_s = self._megabytes / settings.megabytes_per_s
        return factor * images * settings.seconds_per_image + link_s
