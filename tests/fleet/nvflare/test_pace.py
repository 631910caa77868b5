"""How often what is said, by a job's size: small ones stay quick, large ones stay cheap."""

from __future__ import annotations

import json
from dataclasses import astuple
from pathlib import Path

import pytest

pytest.importorskip("nvflare")

from fleetseg.config import FleetConfig
from fleetseg.fleet.nvflare.job import write_job
from fleetseg.fleet.nvflare.pace import admin_timeout_s, pace_of

_MS = {"poll": 4.1, "beat": 2.05}  # of the server's processor, measured with NVFlare 2.9


def idle_share(num_sites: int) -> float:
    """Part of a core that what idle vehicles say in a job costs the server."""
    pace = pace_of(num_sites)
    ms = _MS["poll"] / pace.heart_s + _MS["beat"] * (1 / pace.beat_s + 1 / pace.job_beat_s)
    return num_sites * ms / 1000


@pytest.mark.parametrize("num_sites", [1, 2, 5, 20])
def test_a_few_are_heard_each_second_and_asked_within_a_tenth(num_sites: int) -> None:
    pace = pace_of(num_sites)
    assert (pace.beat_s, pace.job_beat_s, pace.join_s) == (1.0, 10.0, 60.0)
    assert pace.poll_s <= max(0.1, num_sites / 50)


def test_five_hundred_idle_vehicles_cost_less_than_a_tenth_of_a_core() -> None:
    assert all(idle_share(n) < 0.1 for n in range(1, 501))


def test_patience_is_longer_than_what_it_waits_for() -> None:
    """A vehicle that polls fetches in time, at every size."""
    for n in range(1, 2000, 7):
        assert 1.5 * pace_of(n).poll_s < FleetConfig().fetch_s
        assert astuple(pace_of(n)) <= astuple(pace_of(n + 1))


def test_a_job_says_so_to_both_sides(tmp_path: Path) -> None:
    folder = write_job(tmp_path / "job", [f"car-{k}" for k in range(500)])
    config = folder / "app" / "config"
    server = json.loads((config / "config_fed_server.json").read_text())
    client = json.loads((config / "config_fed_client.json").read_text())
    assert server["server"]["task_request_interval"] == 10.0
    assert client["default_task_fetch_interval"] == 10.0
    assert client["runner_sync_timeout"] == 30.0  # of 2 s, hundreds ask faster than is answered
    assert pace_of(5).sync_s == 2.0
    for side in (server, client):
        assert side["max_runner_sync_timeout"] == 300.0
        assert side["dead_client_grace_period"] >= 3 * side["job_heartbeat_interval"]


def test_the_server_waits_longer_for_more_vehicles() -> None:
    assert [admin_timeout_s(n) for n in (0, 50, 200, 5000)] == [10.0, 10.0, 40.0, 60.0]
