"""Updates packed and unpacked as on a real way up: an engine in front of another."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from fleetseg.compression.uplink import Uplink
from fleetseg.errors import UpdateRejected
from fleetseg.federation.engine import Engine
from fleetseg.federation.messages import Broadcast, Enrolment, Evaluation, Failure, Update


class CompressedEngine:
    """Wraps an engine; every update that comes out has been a message of `wire_bytes` bytes."""

    def __init__(self, engine: Engine, uplink: Uplink) -> None:
        self._engine = engine
        self._uplink = uplink

    def available(self) -> Mapping[str, Enrolment]:
        """Every client of the engine behind."""
        return self._engine.available()

    def train(
        self, cohort: Sequence[str], broadcast: Broadcast, deadline_s: float
    ) -> Iterator[Update | Failure]:
        """Have the cohort train, and send what comes back through the codec."""
        for reply in self._engine.train(cohort, broadcast, deadline_s):
            yield reply if isinstance(reply, Failure) else self._sent(reply)

    def evaluate(
        self, cohort: Sequence[str], broadcast: Broadcast, deadline_s: float
    ) -> Iterator[Evaluation | Failure]:
        """Confusion matrices are small already."""
        return self._engine.evaluate(cohort, broadcast, deadline_s)

    def _sent(self, update: Update) -> Update | Failure:
        try:
            return self._uplink.unpack(self._uplink.pack(update))
        except UpdateRejected as rejected:
            return Failure(update.client_id, "refused", rejected.reason, str(rejected)[:500])
