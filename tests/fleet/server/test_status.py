"""A fleet's status on disk: what changes is written, what does not is not, and both are read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from fleetseg.fleet.nvflare.provision import Fleet
from fleetseg.fleet.server.status import HEAD, SITES, StatusFiles, is_running, read_status

HOLDS = {"images": 4, "pixels": 10, "histogram": [7, 3], "abstains": ""}


@pytest.fixture
def fleet(tmp_path: Path) -> Fleet:
    return Fleet(tmp_path, "localhost")


def head(at_s: float, **changes: Any) -> dict[str, Any]:
    told = {"time": at_s, "running": True, "run": "r", "classes": ["a", "b"], "segment": 1}
    return {**told, "trouble": "", **changes}


def here(at_s: float, **changes: Any) -> dict[str, Any]:
    return {"last_seen": at_s - 1, "here": True, "busy": "", "vehicles": {"v": HOLDS}, **changes}


def written(fleet: Fleet) -> float:
    """Which file of the sites it is: another one at each writing."""
    return (fleet.folder / SITES).stat().st_ino


def test_what_is_written_is_read(fleet: Fleet) -> None:
    assert read_status(fleet) == {}
    StatusFiles(fleet).write(head(100), {"car-1": here(100)})
    status = read_status(fleet)
    assert {key: status[key] for key in head(100)} == head(100)
    assert status["sites"] == {"car-1": {**here(100), "last_seen": 100}}
    assert is_running(status, 110)
    assert not is_running(status, 200)


def test_where_nothing_changes_the_sites_are_not_written_again(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[int] = []
    monkeypatch.setattr("os.fsync", synced.append)
    status = StatusFiles(fleet)
    status.write(head(100), {"car-1": here(100)})
    first = written(fleet)
    for at_s in range(102, 200, 2):
        status.write(head(at_s), {"car-1": here(at_s)})
    assert written(fleet) == first
    assert len((fleet.folder / HEAD).read_text()) < 200  # however many vehicles there are
    assert read_status(fleet)["sites"]["car-1"]["last_seen"] == 198  # seen all the same
    status.write(head(200), {"car-1": here(200, busy="train-1")})
    assert written(fleet) != first
    assert read_status(fleet)["sites"]["car-1"]["busy"] == "train-1"
    assert synced == []


def test_in_a_large_fleet_the_sites_are_written_less_often_and_at_the_end(fleet: Fleet) -> None:
    status, many = StatusFiles(fleet), {f"car-{k}": here(100) for k in range(1000)}
    status.write(head(100), many)
    first = written(fleet)
    status.write(head(108), {**many, "car-1": here(108, busy="train-1")})
    assert written(fleet) == first
    status.write(head(110), {**many, "car-1": here(110, busy="train-1")})
    assert written(fleet) != first
    status.write(head(112, running=False), {})
    sites = read_status(fleet)["sites"]
    assert len(sites) == 1000
    assert not any(site["here"] or "busy" in site for site in sites.values())


def test_a_clock_that_is_set_back_keeps_no_news_from_being_written(fleet: Fleet) -> None:
    status = StatusFiles(fleet)
    status.write(head(5000), {"car-1": here(5000)})
    status.write(head(1400), {"car-1": here(1400, busy="train-1")})
    assert read_status(fleet)["sites"]["car-1"]["busy"] == "train-1"


def test_a_site_that_is_away_is_shown_with_what_was_known_of_it(fleet: Fleet) -> None:
    status = StatusFiles(fleet)
    status.write(head(100), {"car-1": here(100, quarantined="why", last_round=7)})
    for at_s in (120, 140):
        status.write(head(at_s), {"car-1": here(at_s, quarantined="why", last_round=7)})
    status.write(head(142), {})
    away = {"last_seen": 140, "here": False, "vehicles": {"v": HOLDS}, "last_round": 7}
    assert read_status(fleet)["sites"] == {"car-1": away}
    # And after a start of the server for the same run, but not for another one.
    again = StatusFiles(fleet)
    again.write(head(300), {"car-2": here(300)})
    assert read_status(fleet)["sites"]["car-1"] == away
    StatusFiles(fleet).write(head(400, run="other"), {"car-2": here(400)})
    assert read_status(fleet)["sites"].keys() == {"car-2"}


def test_a_status_of_an_earlier_version_is_read(fleet: Fleet) -> None:
    before = {**head(100), "sites": {"car-1": {"last_seen": 90.0, "vehicles": {"v": HOLDS}}}}
    (fleet.folder / HEAD).write_text(json.dumps(before))
    assert read_status(fleet) == before
    StatusFiles(fleet).write(head(200), {})
    assert read_status(fleet)["sites"]["car-1"]["last_seen"] == 90.0


@pytest.mark.parametrize("content", ["", "[]", '{"run": "r", "sites": []}', "{"])
def test_sites_that_cannot_be_read_are_none(fleet: Fleet, content: str) -> None:
    StatusFiles(fleet).write(head(100), {"car-1": here(100)})
    (fleet.folder / SITES).write_text(content)
    assert read_status(fleet).get("sites", {}) == {}
