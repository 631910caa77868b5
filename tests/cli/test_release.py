"""`fleetseg release`, `releases`, `rollback` as they are typed: exit codes, words, files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.release_world import World
from typer.testing import CliRunner, Result

from fleetseg.cli.app import app

POLICY = """
[bootstrap]
resamples = 100
[robustness]
kinds = []
[latency]
images = 3
max_ratio = 100.0
"""


def fleetseg(*words: str | Path) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words])


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("policy") / "policy.toml"
    path.write_text(POLICY)
    return path


def test_release_refuse_list_and_go_back(
    world: World,
    policy: Path,
    tmp_path: Path,
) -> None:
    models = tmp_path / "models"
    common = ["--on", world.experiment, "--models", models, "--policy", policy]
    for number in (1, 2):
        done = fleetseg("release", world.current, *common, "--out", tmp_path / "out")
        assert done.exit_code == 0, done.output
        assert f"release {number:04d} is current: {models / f'{number:04d}'}" in done.output
    refused = fleetseg("release", world.blind, *common, "--out", tmp_path / "no", "--json")
    assert refused.exit_code == 3
    record = json.loads(refused.stdout)
    assert record["decision"] == "refused"
    assert record == json.loads((tmp_path / "no" / "release.json").read_text())
    listed = fleetseg("releases", "--models", models)
    assert listed.exit_code == 0
    first, second = listed.output.splitlines()[1:3]
    assert "0001" in first
    assert "nothing" in first
    assert second.startswith("*")
    assert "release 0001" in second
    assert "whole" in second
    back = fleetseg("rollback", "--models", models)
    assert back.exit_code == 0
    assert f"release 0001 is current again, instead of 0002: {models / '0001'}" in back.output
    again = fleetseg("rollback", "--models", models)
    assert again.exit_code == 1
    assert "the current release is the first: nothing to go back to" in again.output


def test_what_is_typed_wrong(policy: Path, tmp_path: Path) -> None:
    missing = fleetseg("release", tmp_path, "--policy", tmp_path / "none.toml")
    assert missing.exit_code == 1
    assert "policy file not found" in missing.output
    nothing = fleetseg("releases", "--models", tmp_path / "none")
    assert nothing.exit_code == 1
    assert "there is no registry of releases" in nothing.output
    assert fleetseg("rollback", "--to", "0").exit_code == 2


def test_a_release_for_a_fleet_that_is_not_there(tmp_path: Path) -> None:
    nowhere = fleetseg("fleet", "publish", "--fleet", tmp_path, "--models", tmp_path)
    assert nowhere.exit_code == 1
    assert "no fleet.json: not a fleet's folder" in nowhere.output
    wrong = fleetseg("fleet", "publish", "0", "--fleet", tmp_path)
    assert wrong.exit_code == 2
