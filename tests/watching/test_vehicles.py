"""The vehicles' section: what each is doing, told by the status that the server writes."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import Any

import pytest
from tests.records import failed, record

from fleetseg.errors import ConfigError
from fleetseg.fleet.nvflare.provision import Fleet
from fleetseg.watching.vehicles import vehicles_html

NAMES = ("car-1", "car-2", "car-3", "car-4", "car-5", "car-6")


@pytest.fixture
def fleet(tmp_path: Path) -> Path:
    Fleet(tmp_path, "localhost", vehicles=NAMES, revoked=("car-6",)).save()
    return tmp_path


def write_status(fleet: Path, sites: dict[str, Any], **changes: Any) -> None:
    status = {"time": time.time(), "running": True, "run": "r", "sites": sites, **changes}
    (fleet / "status.json").write_text(json.dumps(status))


def states(html: str) -> dict[str, str]:
    """What the table says of each vehicle."""
    rows = re.findall(r"<th scope=row>(.*?)</th><td><span[^>]*>(.*?)</span>(.*?)</td>", html)
    return {name: f"{state}{note}" for name, state, note in rows}


def test_each_vehicle_has_a_state(fleet: Path) -> None:
    now = time.time()
    write_status(
        fleet,
        {
            "car-1": {"last_seen": now, "busy": "", "vehicles": {"car-1": {"images": 1234}}},
            "car-2": {"last_seen": now, "busy": "train-7"},
            "car-3": {"last_seen": now, "busy": "train-7"},
            "car-4": {"last_seen": now - 4000, "last_round": 3},
            "car-5": {"last_seen": now, "refused": "version: 0.0.1"},
            "car-6": {"last_seen": now},
        },
    )
    last = record(9, failures=(failed("car-3", "late"),))
    html = vehicles_html(fleet, last)
    assert states(html) == {
        "car-1": "connected",
        "car-2": "busy training",
        "car-3": "late in round 9",
        "car-4": "away",
        "car-5": "refused version: 0.0.1",
        "car-6": "revoked",
    }
    assert "3 of 6 vehicles are connected" in html
    assert "1,234" in html
    assert "66 min ago" in html


@pytest.mark.parametrize("changes", [{"running": False}, {"time": 1.0}])
def test_without_a_server_nobody_is_here(fleet: Path, changes: dict[str, Any]) -> None:
    write_status(fleet, {"car-1": {"last_seen": time.time(), "busy": "train-7"}}, **changes)
    html = vehicles_html(fleet, None)
    assert "The fleet's server is not running" in html
    assert states(html)["car-1"] == "away"


def test_a_fleet_that_never_ran_is_shown(fleet: Path) -> None:
    assert set(states(vehicles_html(fleet, None))) == set(NAMES)


def test_what_a_vehicle_says_is_text_and_no_markup(fleet: Path) -> None:
    evil = "<script>alert(1)</script>-1"
    write_status(fleet, {"car-1": {"last_seen": time.time(), "busy": evil, "refused": evil}})
    assert "<script" not in vehicles_html(fleet, None)


def test_the_section_stays_as_it_is_while_nothing_happens(
    fleet: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time.time()
    write_status(fleet, {"car-1": {"last_seen": now}})
    first = vehicles_html(fleet, None)
    monkeypatch.setattr(time, "time", lambda: now + 5)
    assert vehicles_html(fleet, None) == first


def test_of_many_vehicles_those_that_need_a_look_come_first(tmp_path: Path) -> None:
    names = tuple(f"car-{k:03d}" for k in range(300))
    Fleet(tmp_path, "localhost", vehicles=names).save()
    now = time.time()
    sites: dict[str, Any] = {name: {"last_seen": now} for name in names}
    sites["car-250"] = {"last_seen": now - 4000}
    sites["car-299"] = {"last_seen": now, "refused": "version"}
    write_status(tmp_path, sites)
    shown, rest = vehicles_html(tmp_path, None).split("<details>")
    assert list(states(shown))[:3] == ["car-299", "car-250", "car-000"]
    assert len(states(shown)) == 24
    assert "<summary>276 more vehicles</summary>" in rest
    assert "298 of 300 vehicles are connected" in shown


def test_a_folder_without_a_fleet_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        vehicles_html(tmp_path, None)


def test_the_release_that_each_drives_is_shown(fleet: Path) -> None:
    write_status(fleet, {"car-1": {"last_seen": time.time()}})
    (fleet / "drives.json").write_text(json.dumps({"car-1": {"release": 12}, "car-2": 3}))
    html = vehicles_html(fleet, None)
    assert re.findall(r"<th scope=row>(.*?)</th>.*<td class=num>(\d+)</td></tr>", html) == [
        ("car-1", "12")
    ]
