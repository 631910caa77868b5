"""`fleetseg data cache`, from outside."""

from __future__ import annotations

import json
import os
import re
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from fleetseg.cli.app import app
from fleetseg.config import SourceConfig
from fleetseg.data.labels import CAMVID_11
from fleetseg.data.sources import open_source
from fleetseg.data.store.cache import open_store
from fleetseg.data.store.store import opened


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache with one closed store of two painted pictures, and a store of an old format."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("FLEETSEG_CACHE", str(folder))
    config = SourceConfig(cities=("amber",), conditions=("day",), frames_per_drive=2)
    open_store(
        open_source(config),
        size_hw=(48, 64),
        space=CAMVID_11,
        cache_dir=folder,
        native_labels=False,
    )
    opened.cache_clear()
    old = folder / f"camvid-{'ab' * 16}"
    old.mkdir()
    (old / "images.u8").write_bytes(bytes(20_000))
    (old / "index.json").write_text('{"version": 2}')
    return folder


def fleetseg(*words: str) -> Result:
    result = CliRunner().invoke(app, ["data", "cache", *words])
    assert result.exit_code == 0, result.output
    return result


def test_list_names_each_folder_and_the_total(cache: Path) -> None:
    text = fleetseg("list").stdout
    assert re.search(
        r"synthetic-images-\w{8} +images 48x64 +synthetic/train +2 +\d+ kB +just now +whole", text
    )
    assert "labels camvid11 48x64" in text
    assert re.search(r"camvid-\w{8} .* old format", text)
    assert re.search(rf"3 folders, \d+ kB in {re.escape(str(cache))}", text)
    assert "unusable: fleetseg data cache prune" in text


def test_list_as_json(cache: Path) -> None:
    told = json.loads(fleetseg("list", "--json").stdout)
    assert told["folder"] == str(cache)
    assert told["bytes"] == sum(store["bytes"] for store in told["stores"])
    assert sorted(store["state"] for store in told["stores"]) == ["old format", "whole", "whole"]
    assert set(told["stores"][0]) == {
        *("name", "holds", "source", "samples", "bytes", "last_used", "state", "in_use")
    }


def test_an_empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLEETSEG_CACHE", str(tmp_path / "nothing"))
    assert fleetseg("list").stdout == f"0 folders, 0 bytes in {tmp_path / 'nothing'}\n"
    assert fleetseg("prune", "--all").stdout.startswith("freed 0 bytes; 0 bytes remain")


def test_prune_tells_what_it_removed_and_what_remains(cache: Path) -> None:
    text = fleetseg("prune", "--dry-run").stdout
    assert re.match(r"would remove camvid-abababab \(camvid, \d+ kB, last used just now", text)
    assert re.search(r"would free \d+ kB; \d+ kB would remain in ", text)
    assert len(list(cache.iterdir())) == 3
    text = fleetseg("prune").stdout
    assert text.startswith("removed camvid-abababab (camvid, ")
    assert "old format" in text
    assert len(json.loads(fleetseg("list", "--json").stdout)["stores"]) == 2


def test_prune_by_age_and_by_room(cache: Path) -> None:
    week_ago_s = time.time() - 7 * 86_400
    for folder in cache.glob("synthetic-*"):
        for path in folder.iterdir():
            os.utime(path, (week_ago_s, week_ago_s))
    assert "synthetic" not in fleetseg("prune", "--older-than", "8").stdout
    assert "synthetic-images" in fleetseg("prune", "--older-than", "6", "--dry-run").stdout
    assert "synthetic-images" in fleetseg("prune", "--keep-gb", "0").stdout
    assert list(cache.glob("*-*")) == []


def test_prune_keeps_what_is_open_and_says_so(cache: Path) -> None:
    told = json.loads(fleetseg("list", "--json").stdout)
    images, labels = (
        next(cache / s["name"] for s in told["stores"] if s["holds"].startswith(kind))
        for kind in ("images", "labels")
    )
    pixels = opened(images, labels)
    text = fleetseg("prune", "--all").stdout
    assert re.search(
        r"kept synthetic-images-\w{8} .*, in use\): a running process has it open", text
    )
    told = json.loads(fleetseg("prune", "--all", "--json").stdout)
    assert [kept["reason"] for kept in told["kept"]] == ["a running process has it open"] * 2
    assert told["remaining_bytes"] > 0
    assert pixels.images_NHWC.shape == (2, 48, 64, 3)
    opened.cache_clear()


@pytest.mark.parametrize("words", [["--all", "--keep-gb", "1"], ["--older-than", "-1"]])
def test_what_contradicts_itself_is_refused(cache: Path, words: list[str]) -> None:
    assert CliRunner().invoke(app, ["data", "cache", "prune", *words]).exit_code == 2
    assert len(list(cache.iterdir())) == 3
