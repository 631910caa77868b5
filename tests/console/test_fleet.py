"""`fleetseg fleet status` from a status file, and names of vehicles."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from fleetseg.console import fleet as console_fleet
from fleetseg.console.fleet import show_status, vehicle_names
from fleetseg.data.labels import label_space
from fleetseg.errors import ConfigError

pytest.importorskip("nvflare")
CLASSES = label_space("camvid11").classes


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("1", ("car-1",)),
        (" 3 ", ("car-1", "car-2", "car-3")),
        ("depot", ("depot",)),
        ("depot, van-7,,", ("depot", "van-7")),
        ("2,3", ("2", "3")),
        ("-1", ("-1",)),
    ],
)
def test_vehicles_are_a_number_or_names(text: str, names: tuple[str, ...]) -> None:
    assert vehicle_names(text) == names


@pytest.mark.parametrize("text", ["0", "10001", "99999999"])
def test_absurd_numbers_of_vehicles(text: str) -> None:
    with pytest.raises(ConfigError, match=f"takes 1 to 10000, or names; got {text}"):
        vehicle_names(text)


@pytest.mark.parametrize("text", ["", " ", ",", " , "], ids=repr)
def test_a_list_without_a_name(text: str) -> None:
    with pytest.raises(ConfigError):
        vehicle_names(text)


# Status


@pytest.fixture
def fleet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A fleet's folder, without its keys; and time stands still."""
    now = time.time()
    monkeypatch.setattr(console_fleet.time, "time", lambda: now)
    fields = {
        "host": "localhost",
        "port": 8102,
        "vehicles": ["car-1", "car-2", "car-3", "car-4"],
        "revoked": ["car-3"],
    }
    (tmp_path / "fleet.json").write_text(json.dumps(fields))
    return tmp_path


def vehicle(images: int, *, of_class: int = 0) -> dict[str, Any]:
    histogram = [0] * len(CLASSES)
    histogram[of_class] = 1_500_000
    return {"images": images, "pixels": 1_500_000, "histogram": histogram, "abstains": ""}


MACHINE = {
    "fleetseg": "0.1.0",
    "machine": "aarch64",
    "cores": 4,
    "device": "cpu",
    "precision": "bf16",
}


def write_status(folder: Path, age_s: float = 1.0, **changes: Any) -> None:
    now = time.time()
    status = {
        "time": now - age_s,
        "running": True,
        "run": "tiny-abc",
        "classes": list(CLASSES),
        "segment": 2,
        "trouble": "",
        "sites": {
            "car-1": {
                "last_seen": now - 2,
                "vehicles": {"car-1": vehicle(1234)},
                "machine": MACHINE,
                "last_round": 7,
            },
            "car-2": {
                "last_seen": now - 600,
                "refused": "clock: the vehicle's clock is 900 s ahead",
            },
            "car-3": {"last_seen": now - 1},
        },
    }
    (folder / "status.json").write_text(json.dumps({**status, **changes}))


def shown(folder: Path, capsys: pytest.CaptureFixture[str]) -> list[str]:
    show_status(folder, as_json=False)
    return capsys.readouterr().out.splitlines()


def row(lines: list[str], name: str) -> list[str]:
    told = ("was", "refuses")
    rows = (line.split() for line in lines if not any(word in line for word in told))
    (found,) = (words for words in rows if words[:1] == [name])
    return found


def test_who_is_there_and_what_they_hold(fleet: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_status(fleet)
    lines = shown(fleet, capsys)
    assert lines[0] == "server localhost, port 8102: running, run tiny-abc, segment 2"
    text = " ".join(row(lines, "car-1"))
    assert text.startswith("car-1 online 2 s 1,234 1.50")
    assert text.endswith("aarch64, 4 cores, cpu bf16 0.1.0 7")
    assert row(lines, "car-2") == ["car-2", "away", "10", "min"]
    assert row(lines, "car-3")[:2] == ["car-3", "revoked"]
    assert row(lines, "car-4") == ["car-4", "away", "never"]
    assert "car-2 was refused: clock: the vehicle's clock is 900 s ahead" in lines


def test_a_site_with_several_vehicles_has_a_line_for_each(
    fleet: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    held = {"a": vehicle(5), "b": vehicle(6, of_class=1)}
    write_status(fleet, sites={"car-1": {"last_seen": time.time(), "vehicles": held}})
    lines = [line.split() for line in shown(fleet, capsys)]
    assert [line[:5] for line in lines if line[:1] == ["car-1"]] == [
        ["car-1", "a", "online", "0", "s"],
        ["car-1", "b", "online", "0", "s"],
    ]


def test_trouble_is_said_while_it_runs(fleet: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_status(fleet, trouble="waiting for car-4")
    assert shown(fleet, capsys)[1] == "waiting for car-4"
    write_status(fleet, trouble="waiting for car-4", running=False)
    assert "waiting for car-4" not in shown(fleet, capsys)


@pytest.mark.parametrize("changes", [{"running": False}, {"age_s": 100.0}], ids=str)
def test_a_server_that_stopped_or_was_killed_does_not_run(
    fleet: Path, capsys: pytest.CaptureFixture[str], changes: dict[str, Any]
) -> None:
    write_status(fleet, **changes)
    lines = shown(fleet, capsys)
    assert lines[0] == "server localhost, port 8102: not running"
    assert row(lines, "car-1")[:2] == ["car-1", "away"]
    assert "1,234" in row(lines, "car-1")  # what is known of it stays


@pytest.mark.parametrize("content", [None, "", "{", "[]", "{}"], ids=repr)
def test_no_status_yet(
    fleet: Path, capsys: pytest.CaptureFixture[str], content: str | None
) -> None:
    if content is not None:
        (fleet / "status.json").write_text(content)
    lines = shown(fleet, capsys)
    assert lines[0] == "server localhost, port 8102: not running"
    assert row(lines, "car-1") == ["car-1", "away", "never"]


def test_status_as_json(fleet: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_status(fleet)
    show_status(fleet, as_json=True)
    told = json.loads(capsys.readouterr().out)
    assert told["running"] is True
    assert told["revoked"] == ["car-3"]
    assert set(told["sites"]) == {"car-1", "car-2", "car-3", "car-4"}
    assert told["sites"]["car-1"]["last_round"] == 7
    assert told["sites"]["car-4"] == {}


def test_status_as_json_of_a_server_that_was_killed(
    fleet: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_status(fleet, age_s=100.0)
    show_status(fleet, as_json=True)
    assert json.loads(capsys.readouterr().out)["running"] is False


@pytest.mark.parametrize(
    "machine", [{"cores": "many"}, {"cores": [4]}, {"machine": "\ud800"}], ids=ascii
)
def test_whatever_a_vehicle_says_of_its_machine_is_shown(
    fleet: Path, capsys: pytest.CaptureFixture[str], machine: dict[str, Any]
) -> None:
    site = {"last_seen": time.time(), "vehicles": {"car-1": vehicle(5)}}
    write_status(fleet, sites={"car-1": {**site, "machine": {**MACHINE, **machine}}})
    assert row(shown(fleet, capsys), "car-1")[:2] == ["car-1", "online"]


def test_which_release_each_drives_and_who_refused(
    fleet: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_status(fleet)
    told = {
        "car-1": {"release": 2, "digest": "0" * 64},
        "car-2": {"release": 1, "refused": "digest: not that file", "offered": 2},
        "gone": {"release": 1},
    }
    (fleet / "drives.json").write_text(json.dumps(told))
    lines = shown(fleet, capsys)
    assert row(lines, "car-1")[-2:] == ["7", "2"]
    assert "car-2 refuses release 2: digest: not that file" in lines
    show_status(fleet, as_json=True)
    sites = json.loads(capsys.readouterr().out)["sites"]
    assert sites["car-1"]["drives"]["release"] == 2
    assert "gone" not in sites


def test_a_folder_that_is_no_fleet(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"not a fleet's folder.*fleetseg fleet init"):
        show_status(tmp_path, as_json=False)
    (tmp_path / "fleet.json").write_text('{"host": "x"}')
    with pytest.raises(ConfigError, match=r"fleet\.json: cannot be read"):
        show_status(tmp_path, as_json=False)
