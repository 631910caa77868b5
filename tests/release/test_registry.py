"""The registry: numbered releases, one of them current, and nothing half written or changed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fleetseg.errors import CheckpointError, ConfigError, FolderInUse, ModelError
from fleetseg.release.registry import (
    current_folder,
    current_number,
    publish,
    releases,
    rollback,
    sha256_of,
)
from fleetseg.runs.lock import owning


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "run" / "model"
    folder.mkdir(parents=True)
    for name in ("model.safetensors", "config.json", "README.md", "cluster-0.safetensors"):
        (folder / name).write_text(f"the {name}")
    return folder


@pytest.fixture
def three(tmp_path: Path, model: Path) -> Path:
    """A registry with three releases."""
    registry = tmp_path / "models"
    for judged_by in (None, 1, 2):
        publish(registry, model.parent, {"decision": "promoted"}, "<html>", judged_by)
    return registry


def test_releases_are_numbered_and_whole(three: Path, model: Path) -> None:
    assert sorted(p.name for p in three.iterdir()) == ["0001", "0002", "0003", "current"]
    assert (three / "current").read_text() == "0003\n"
    assert [(r.number, r.is_current, r.replaced, r.damage) for r in releases(three)] == [
        (1, False, None, ""), (2, False, 1, ""), (3, True, 2, ""),
    ]  # fmt: skip
    folder = current_folder(three)
    assert folder == three / "0003"
    record = json.loads((folder / "release.json").read_text())
    assert record["files"] == {path.name: sha256_of(path) for path in model.iterdir()}
    assert (folder / "release.html").read_text() == "<html>"


def test_going_back_goes_to_what_was_replaced(three: Path, model: Path) -> None:
    before, now = rollback(three)
    assert (before.number, now.number, now.is_current) == (3, 2, True)
    after = publish(three, model, {}, "", 2)
    assert (after.number, after.replaced) == (4, 2)
    assert rollback(three)[1].number == 2  # not 3, which somebody had gone back from
    assert rollback(three)[1].number == 1
    with pytest.raises(ConfigError, match=r"the first: nothing to go back to"):
        rollback(three)
    assert rollback(three, to=3)[1].number == current_number(three) == 3


def test_a_release_that_was_changed_is_not_gone_back_to(three: Path) -> None:
    (three / "0002" / "model.safetensors").write_text("another")
    assert [r.damage for r in releases(three)] == [
        "", "model.safetensors has changed since the release", "",
    ]  # fmt: skip
    with pytest.raises(ModelError, match=r"release 0002 cannot be used: model.safetensors has"):
        rollback(three)
    assert current_number(three) == 3
    (three / "0003" / "config.json").unlink()
    with pytest.raises(ModelError, match=r"config.json is missing"):
        current_folder(three)
    (three / "0001" / "release.json").write_text("{")
    assert releases(three)[0].damage == "release.json cannot be read (JSONDecodeError)"


def test_nothing_is_left_of_a_release_that_failed(
    three: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*paths: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("fleetseg.release.registry.os.rename", fails)
    with pytest.raises(KeyboardInterrupt):
        publish(three, model, {}, "", 3)
    assert sorted(p.name for p in three.iterdir()) == ["0001", "0002", "0003", "current"]
    assert current_number(three) == 3


def test_two_at_once_are_refused(three: Path, model: Path) -> None:
    with pytest.raises(
        CheckpointError, match=r"another model has become current.*got 3, expected 2"
    ):
        publish(three, model, {}, "", 2)
    with owning(three), pytest.raises(FolderInUse):
        publish(three, model, {}, "", 3)


def test_what_there_is_not(tmp_path: Path, three: Path) -> None:
    for call in (releases, rollback):
        with pytest.raises(ConfigError, match=r"there is no registry of releases"):
            call(tmp_path / "nowhere")
    assert current_folder(tmp_path / "nowhere") is None
    with pytest.raises(ConfigError, match=r"there is no release 0009.*one of: 0001, 0002, 0003"):
        rollback(three, to=9)
    (three / "current").write_text("../../etc\n")
    with pytest.raises(CheckpointError, match=r"damaged: not the number of a release"):
        current_number(three)
