"""A server's vehicles by state, how segments ended, and when health is no longer told."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tests.fleet.server.test_endpoint import get

from fleetseg.errors import EngineError
from fleetseg.fleet.server.metrics import STATES, Metrics
from fleetseg.fleet.server.operations import ONLINE_S, Operations, health_of, states_of
from fleetseg.fleet.server.pulse import WAITING_S, Pulse
from fleetseg.fleet.server.silence import Site

pytest.importorskip("nvflare")
pytest.importorskip("prometheus_client")

from fleetseg.fleet.nvflare.provision import Fleet


class World:
    """A server in every state at once."""

    def __init__(self, folder: Path) -> None:
        self.now_s = 100.0
        cars = (*STATES, "silent")
        self.fleet = Fleet(folder, "localhost", 1, cars, ("revoked",))
        self.fleet.save()
        sites = {name: Site(name, 99.0) for name in ("busy", "idle", "overdue", "refused")}
        sites["busy"].busy = "train-1"
        sites["overdue"].busy = sites["overdue"].overdue = "train-0"
        sites |= {"silent": Site("silent", 0.0), "revoked": Site("revoked", 99.0)}
        self.dispatcher: Any = SimpleNamespace(
            **{"sites": sites, "segment": 3, "bytes_down": 5, "bytes_up": 6, "fatal": None},
            silent_s=lambda name: self.now_s - sites[name].beat_s,
        )
        registered = {"outside": 3.0, "busy": 1.0, "silent": ONLINE_S + 1}
        self.network: Any = SimpleNamespace(
            registered=lambda: registered, fatal=lambda: None, trouble=lambda: ""
        )
        self.engine: Any = SimpleNamespace(
            roster=SimpleNamespace(refused={"refused": None}),
            pulse=Pulse(lambda: self.now_s),
            segment_ends=lambda: {"lost": 2},
        )

    @property
    def parts(self) -> tuple[Any, Any, Any]:
        return self.engine, self.dispatcher, self.network


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_every_vehicle_has_one_state(world: World) -> None:
    counted = states_of(world.fleet, *world.parts)
    assert counted == {**dict.fromkeys(STATES, 1), "away": 2}
    assert sum(counted.values()) == len(world.fleet.vehicles)


def test_a_server_that_waits_is_well_and_one_that_hangs_is_not(world: World) -> None:
    world.engine.pulse.waiting()
    assert health_of(*world.parts) == (True, "ok: segment 3")
    world.network.trouble = lambda: "waiting for car-1"
    assert health_of(*world.parts) == (True, "ok: waiting for car-1")
    world.now_s += WAITING_S + 5
    assert health_of(*world.parts) == (False, "the loop has made no progress for 65 s")
    world.engine.pulse.waiting()
    world.dispatcher.fatal = EngineError("a thread has died", got="x")
    assert health_of(*world.parts) == (False, "ending: a thread has died")


def test_both_are_answered_while_the_server_is_up(world: World) -> None:
    operations = Operations(0, Metrics())
    with operations.answering(world.fleet, *world.parts) as port:
        status, _, text = get(port, "/metrics")
        assert status == 200
        assert 'fleetseg_vehicles{state="away"} 2.0' in text
        assert 'fleetseg_segments_ended_total{reason="lost"} 2.0' in text
        assert 'fleetseg_bytes_total{direction="up"} 6.0' in text
        assert get(port, "/healthz")[0] == 200
        world.now_s += 1e6
        assert get(port, "/healthz")[0] == 503
