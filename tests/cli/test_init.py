"""`fleetseg init`, and then the commands that it names: the way of a newcomer with own images."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
from tests.draft.folders import own_folder
from typer.testing import CliRunner, Result

from fleetseg.cli import app
from fleetseg.draft import write
from fleetseg.draft.choose import Machine


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FLEETSEG_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(write, "this_machine", lambda: Machine(2, "cpu", has_pretrained=False))


def typed(command: str) -> Result:
    return CliRunner().invoke(app, shlex.split(command)[1:])


def test_the_commands_that_are_named_next_work() -> None:
    own_folder(Path("drives"), ids=(0, 3, 255), frames=3, drives=("a", "b"))
    told = typed("fleetseg init drives")
    assert told.exit_code == 0, told.output
    lines = told.stdout.splitlines()
    words = dict(line.split(None, 1) for line in lines if not line.startswith(" "))
    assert words["found"].startswith("drives, layout folder in ")
    assert words["images"] == "64 x 96"
    assert (
        words["scored"] == "on  the last fifth of every vehicle's drives: no other split has labels"
    )
    assert words["wrote"] == "drives.toml"
    commands = [
        line.partition("fleetseg ")[2]
        for line in lines[lines.index("wrote      drives.toml") + 1 :]
    ]
    assert [command.split()[0] for command in commands] == ["data", "run", "run"]
    assert typed(f"fleetseg {commands[0]}").exit_code == 0
    rehearsed = typed(f"fleetseg {commands[1]}")
    assert "3 vehicles, " in rehearsed.stdout
    assert "this experiment can run" in rehearsed.stdout
    assert not Path("runs").exists()
    short = "--set federation.rounds=1 --set engine.kind=inprocess --quiet"
    run = typed(f"fleetseg {commands[2]} {short}")
    assert run.exit_code == 0, run.output
    assert Path("runs/drives/model/model.safetensors").is_file()


def test_errors_are_one_line() -> None:
    told = typed("fleetseg init nowhere")
    assert told.exit_code == 1
    assert told.stderr == "error: nowhere: folder not found\n"
