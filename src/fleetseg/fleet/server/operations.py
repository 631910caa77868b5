"""Monitoring of a running server from outside: its metrics and its health."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fleetseg.fleet.nvflare.provision import Fleet, read_fleet
from fleetseg.fleet.server.dispatcher import TaskDispatcher
from fleetseg.fleet.server.endpoint import answering
from fleetseg.fleet.server.engine import FleetEngine
from fleetseg.fleet.server.metrics import FleetNow, Metrics

if TYPE_CHECKING:  # `fleetseg watch` needs no NVFlare
    from fleetseg.fleet.nvflare.network import NvflareNetwork

ONLINE_S = 25.0
"""A vehicle not seen for longer is away; a server whose status is older was killed."""


@dataclass(frozen=True)
class Operations:
    """The port and metrics of a server's HTTP endpoint."""

    port: int
    metrics: Metrics

    @contextmanager
    def answering(
        self,
        fleet: Fleet,
        engine: FleetEngine,
        dispatcher: TaskDispatcher,
        network: NvflareNetwork,
    ) -> Iterator[int]:
        """Serve metrics and health while the block runs; yields the port."""

        def now() -> FleetNow:
            states = states_of(read_fleet(fleet.folder), engine, dispatcher, network)
            return FleetNow(
                states,
                dispatcher.segment,
                engine.segment_ends(),
                dispatcher.bytes_down,
                dispatcher.bytes_up,
            )

        def health() -> tuple[bool, str]:
            return health_of(engine, dispatcher, network)

        self.metrics.now = now
        with answering(self.port, self.metrics.text, health) as port:
            yield port


def states_of(
    fleet: Fleet, engine: FleetEngine, dispatcher: TaskDispatcher, network: NvflareNetwork
) -> Counter[str]:
    """Count the vehicles of a fleet by state, see `metrics.STATES`; each has one state."""
    registered, sites = network.registered(), dict(dispatcher.sites)
    refused, revoked = set(engine.roster.refused), set(fleet.revoked)
    counted: Counter[str] = Counter()
    for name in fleet.vehicles:
        site, age_s = sites.get(name), registered.get(name, float("inf"))
        if name in revoked:
            state = "revoked"
        elif site is None or dispatcher.silent_s(name) > ONLINE_S:
            state = "outside" if age_s < ONLINE_S else "away"
        elif name in refused:
            state = "refused"
        elif site.overdue:
            state = "overdue"
        else:
            state = "busy" if site.busy else "idle"
        counted[state] += 1
    return counted


def health_of(
    engine: FleetEngine, dispatcher: TaskDispatcher, network: NvflareNetwork
) -> tuple[bool, str]:
    """Return whether the loop is making progress, and one line about it.

    A server that waits for a fleet without vehicles is healthy: restarting it would not help.
    """
    fatal = dispatcher.fatal or network.fatal()
    if fatal is not None:
        return False, f"ending: {fatal.what}"
    if stalled_s := engine.pulse.stalled_s():
        return False, f"the loop has made no progress for {stalled_s:.0f} s"
    trouble = network.trouble()
    return True, f"ok: {trouble}" if trouble else f"ok: segment {dispatcher.segment}"
