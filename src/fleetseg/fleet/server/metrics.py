"""The server's Prometheus metrics: counters since this start, and the vehicles' current states."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, get_args

from fleetseg._version import __version__
from fleetseg.errors import MissingExtra
from fleetseg.failures import FailureKind
from fleetseg.federation.records import RoundRecord
from fleetseg.federation.rounds import Watcher

if TYPE_CHECKING:
    from prometheus_client.core import Metric

STATES = ("busy", "idle", "overdue", "outside", "refused", "revoked", "away")
"""States of a vehicle: working on a task; waiting for one; working on one that was abandoned;
connected but not in the running segment; refused at the hello; revoked; not connected."""
ENDS = ("length", "returned", "revoked", "lost")
"""Why segments end: at their length; to include a returned vehicle; to remove a revoked one;
unplanned, because the job or NVFlare's server has died."""
PHASES = ("waiting", "training", "closing")
"""Parts of a round: vehicles and pace; until the last reply; aggregation, step, scores, disk."""


@dataclass(frozen=True)
class FleetNow:
    """The current state of a fleet."""

    states: Mapping[str, int]  # state -> number of vehicles (kits)
    segments: int = 0
    ends: Mapping[str, int] | None = None  # why segments have ended -> how many
    bytes_down: int = 0
    bytes_up: int = 0


class Metrics:
    """Counts what a run's watcher sees, and renders it in Prometheus' text format."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._rounds = Counter({"quorum": 0, "no_quorum": 0})
        self._failures = Counter(dict.fromkeys(get_args(FailureKind), 0))
        self._accepted = 0
        self._phases = dict.fromkeys(PHASES, 0.0)
        self._phase_began_s = clock()
        self._last: RoundRecord | None = None
        self._last_time = 0.0
        self.now: Callable[[], FleetNow] = lambda: FleetNow({})

    def watching(self, watcher: Watcher) -> Watcher:
        """Return a watcher that counts and then calls the given one."""

        def opened(round_: int, cohort: object) -> None:
            self._leave("waiting")
            watcher.round_opened(round_, cohort)  # type: ignore[arg-type]

        def replied(reply: object, failure: object) -> None:
            self._leave("training")
            watcher.replied(reply, failure)  # type: ignore[arg-type]

        def closed(record: RoundRecord) -> None:
            self._leave("closing")
            self._count(record)
            watcher.round_closed(record)

        return replace(watcher, round_opened=opened, replied=replied, round_closed=closed)

    def _leave(self, phase: str) -> None:
        now_s = self._clock()
        self._phases[phase] += now_s - self._phase_began_s
        self._phase_began_s = now_s

    def _count(self, record: RoundRecord) -> None:
        self._rounds["quorum" if record.quorum else "no_quorum"] += 1
        self._failures.update(failure.kind for failure in record.failures)
        self._accepted += len(record.accepted)
        self._last, self._last_time = record, time.time()

    def text(self) -> bytes:
        """Return everything in Prometheus' text format, version 0.0.4."""
        from prometheus_client import CollectorRegistry, generate_latest

        registry = CollectorRegistry(auto_describe=False)
        registry.register(self)
        return generate_latest(registry)

    def collect(self) -> Iterator[Metric]:
        """Yield every metric; the interface of collectors in prometheus_client."""
        yield from self._of_rounds()
        yield from self._of_the_fleet(self.now())

    def _of_rounds(self) -> Iterator[Metric]:
        yield _gauge("build_info", "1, with the version.", {__version__: 1}, "version")
        yield _counter("rounds", "Rounds closed since this start.", self._rounds, "outcome")
        failures = "Vehicles asked whose update was not used, by kind."
        yield _counter("failures", failures, self._failures, "kind")
        yield _counter("updates", "Updates that were used.", {"": self._accepted})
        yield _counter("phase_seconds", "Seconds by part of a round.", self._phases, "phase")
        if self._last is not None:
            took_part = {"asked": len(self._last.cohort), "used": len(self._last.accepted)}
            yield _gauge("last_round", "Number of the last round.", {"": self._last.round})
            text = "Vehicles of the last round."
            yield _gauge("last_round_participants", text, took_part, "part")
            text = "When the last round closed."
            yield _gauge("last_round_timestamp_seconds", text, {"": self._last_time})

    @staticmethod
    def _of_the_fleet(now: FleetNow) -> Iterator[Metric]:
        states = dict.fromkeys(STATES, 0) | dict(now.states)
        yield _gauge("vehicles", "Vehicles (kits) by state.", states, "state")
        moved = {"down": now.bytes_down, "up": now.bytes_up}
        yield _counter("bytes", "Bytes of models and updates.", moved, "direction")
        yield _counter("segments", "Segments begun since this start.", {"": now.segments})
        ends = dict.fromkeys(ENDS, 0) | dict(now.ends or {})
        yield _counter("segments_ended", "Segments ended, by reason.", ends, "reason")


def require_prometheus() -> None:
    """Raise MissingExtra if prometheus_client is not installed."""
    try:
        import prometheus_client  # noqa: F401
    except ImportError:
        raise MissingExtra("prometheus-client", "fleet", "--metrics-port") from None


def _gauge(name: str, text: str, values: Mapping[str, float], label: str = "") -> Metric:
    from prometheus_client.core import GaugeMetricFamily

    return _filled(GaugeMetricFamily(f"fleetseg_{name}", text, labels=_labels(label)), values)


def _counter(name: str, text: str, values: Mapping[str, float], label: str = "") -> Metric:
    from prometheus_client.core import CounterMetricFamily

    return _filled(CounterMetricFamily(f"fleetseg_{name}", text, labels=_labels(label)), values)


def _labels(label: str) -> tuple[str, ...]:
    return (label,) if label else ()


def _filled(family: Metric, values: Mapping[str, float]) -> Metric:
    for key, value in values.items():
        family.add_metric([key] if key else [], value)  # type: ignore[attr-defined]
    return family
