"""`fleetseg audit verify`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from fleetseg.cli import app
from fleetseg.fleet.message_log import MessageLog


@pytest.fixture
def kit(tmp_path: Path) -> Path:
    for k in range(3):
        MessageLog(tmp_path / "fleetseg/logs/egress.jsonl").append("train", f"car-{k}", {}, b"")
    return tmp_path


def verify(*words: str | Path) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["audit", "verify", *map(str, words)])
    return result.exit_code, " ".join(result.output.split())


def test_a_list_that_is_whole(kit: Path) -> None:
    code, told = verify(kit)
    assert code == 0
    assert "whole" in told
    assert "3 messages" in told
    code, told = verify(kit / "fleetseg/logs/egress.jsonl", "--json")
    assert json.loads(told)["whole"] is True
    assert json.loads(told)["lists"][0]["lines"] == 3


def test_a_list_that_was_touched(kit: Path) -> None:
    path = kit / "fleetseg/logs/egress.jsonl"
    path.write_text(path.read_text().replace("car-1", "car-9"))
    code, told = verify(kit)
    assert code == 3
    assert told.startswith("broken")
    assert "egress.jsonl:3" in told.replace(" ", "")
    code, told = verify(kit, "--json")
    assert (code, json.loads(told)["whole"]) == (3, False)


def test_a_folder_without_a_list(tmp_path: Path) -> None:
    code, told = verify(tmp_path)
    assert code == 1
    assert "no message log" in told
