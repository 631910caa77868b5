"""`fleetseg scenario` from outside: what it prints and writes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from fleetseg.cli.app import app
from fleetseg.data.partition.scenarios import SCENARIOS


def scenario(*words: str | Path) -> Result:
    return CliRunner().invoke(app, ["scenario", *map(str, words)])


def test_all_are_listed_and_those_that_cannot_be_made_are_marked() -> None:
    result = scenario("list")
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    for name in SCENARIOS:
        assert len([line for line in lines if line.startswith(f"{name} ")]) == 1
    listed = json.loads(scenario("list", "--json").stdout)
    assert set(listed) == set(SCENARIOS)
    assert listed["feddrive-cityscapes-uniform"]["published"]["clients"] == 146


def test_show_says_what_to_type() -> None:
    result = scenario("show", "feddrive-cityscapes-heterogeneous")
    assert result.exit_code == 0, result.output
    text = " ".join(result.stdout.split())
    assert "published 144 clients, 2,904 images, cityscapes/heterogeneous/" in text
    assert "fleetseg scenario make feddrive-cityscapes-heterogeneous --root CITYSCAPES" in text
    assert "--from SPLITS/cityscapes/heterogeneous" in text
    shown = scenario("show", "feddrive-idda-rainy-uniform")
    assert shown.exit_code == 0
    assert "idda ((CN, CS))" in " ".join(shown.stdout.split())
    assert json.loads(scenario("show", "synthetic-classes", "--json").stdout)["rule"] == "classes"


@pytest.mark.parametrize("command", ["show", "make"])
def test_a_misspelt_scenario_is_told_with_the_nearest(command: str, tmp_path: Path) -> None:
    out = ["--out", tmp_path / "x.toml"] if command == "make" else []
    result = scenario(command, "synthetic-rainy-unifrom", *out)
    assert result.exit_code == 1
    assert "Did you mean 'synthetic-rainy-uniform'?" in result.stderr
    assert "Traceback" not in result.stderr


def test_make_writes_and_says_what(tmp_path: Path) -> None:
    out = tmp_path / "country.toml"
    result = scenario("make", "synthetic-country-uniform", "--out", out, "--clients", "7")
    assert result.exit_code == 0, result.output
    text = result.stdout
    assert "7 clients with 240 of 240 images: 34 to 35, median 34" in text
    assert f"written: {tmp_path / 'country.json'}\n" in text
    assert f"run it: fleetseg run {out}\n" in text
    again = scenario("make", "synthetic-country-uniform", "--out", out, "--clients", 7, "--json")
    made = json.loads(again.stdout)
    assert made["files"] == [str(tmp_path / "country.json"), str(out)]
    assert sum(made["sizes"].values()) == made["images"] == 240
