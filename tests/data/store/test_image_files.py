"""Images that stay in their files are those of a decoded store, bit for bit."""

from __future__ import annotations

import pickle
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tests.experiments import tiny_experiment

import fleetseg
from fleetseg.config import Experiment, SourceConfig
from fleetseg.data.labels import CAMVID_11, IDD_7, LabelSpace
from fleetseg.data.sample import Source
from fleetseg.data.sources import open_source, reading
from fleetseg.data.store import digests, image_files
from fleetseg.data.store.cache import Store, find_store, open_store, open_stores
from fleetseg.data.store.eviction import Rules, entries, prune
from fleetseg.data.store.store import opened
from fleetseg.data.synthetic.source import open_synthetic, write_dataset
from fleetseg.errors import BadSample

SIZE = (24, 40)


@pytest.fixture(autouse=True)
def _settled_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    # Files of these tests are milliseconds old.
    for module in (digests, image_files):
        monkeypatch.setattr(module, "RACY_NS", 0)


@pytest.fixture(scope="module")
def painted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set on disk: two drives for training, larger than the working size."""
    root, parts = tmp_path_factory.mktemp("painted"), []
    for split, frames in (("train", 6), ("val", 2)):
        config = SourceConfig(
            cities=("amber", "birch"), conditions=("day",), split=split, frames_per_drive=frames
        )
        parts.append(open_synthetic(config, (48, 80)))
    samples = tuple(sample for part in parts for sample in part.samples)
    write_dataset(replace(parts[0], samples=samples), root)
    return root


@pytest.fixture
def source(painted: Path) -> Source:
    return open_source(SourceConfig(kind="camvid", root=str(painted)))


def open_toy(source: Source, cache_dir: Path, **options: Any) -> Store:
    settings = {"size_hw": SIZE, "space": CAMVID_11, "native_labels": False} | options
    return open_store(source, cache_dir=cache_dir, **settings)


def both(source: Source, folder: Path, **options: Any) -> tuple[Store, Store]:
    decoded = open_toy(source, folder / "decoded", **options)
    return decoded, open_toy(source, folder / "files", from_files=True, **options)


def assert_same(one: Store, other: Store) -> None:
    for fact in ("samples", "digests", "bad", "native_hw"):
        assert getattr(one, fact) == getattr(other, fact)
    for fact in ("labelled", "histograms_NC"):
        np.testing.assert_array_equal(getattr(one, fact), getattr(other, fact))
    for i in range(len(one)):
        if i not in one.bad:
            for mine, theirs in zip(one.pair(i), other.pair(i), strict=True):
                assert mine.dtype == theirs.dtype == np.uint8
                np.testing.assert_array_equal(mine, theirs)


@pytest.mark.parametrize("native_labels", [False, True])
@pytest.mark.parametrize("size_hw", [SIZE, (48, 80), (61, 33)], ids=str)
@pytest.mark.parametrize("space", [CAMVID_11, IDD_7], ids=lambda s: s.name)
def test_pixels_and_facts_are_those_of_a_decoded_store(
    source: Source, tmp_path: Path, native_labels: bool, size_hw: tuple[int, int], space: LabelSpace
) -> None:
    options = {"native_labels": native_labels, "size_hw": size_hw, "space": space}
    assert_same(*both(source, tmp_path, **options))


def test_painted_pictures_are_painted_for_each_use(tmp_path: Path) -> None:
    config = SourceConfig(cities=("amber",), conditions=("day",), frames_per_drive=2)
    assert_same(*both(open_source(config), tmp_path))


def test_bad_samples_are_the_same(painted: Path, tmp_path: Path) -> None:
    for file in painted.rglob("*.png"):
        copy = tmp_path / "data" / file.relative_to(painted)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(file.read_bytes())
    source = open_source(SourceConfig(kind="camvid", root=str(tmp_path / "data")))
    first, second = source.samples[:2]
    Path(first.image).write_bytes(Path(first.image).read_bytes()[:-200])
    Image.fromarray(np.full((48, 80), 99, np.uint8)).save(second.label or "")
    decoded, from_files = both(source, tmp_path)
    assert sorted(from_files.bad) == [0, 1]
    assert_same(decoded, from_files)
    with pytest.raises(BadSample, match="truncated or damaged"):
        from_files.pair(0)


def test_the_cache_holds_facts_and_packed_labels(source: Source, tmp_path: Path) -> None:
    told: list[str] = []
    store = open_toy(source, tmp_path, from_files=True, progress=lambda what, *_: told.append(what))
    room = sum(file.stat().st_size for file in tmp_path.rglob("*.u8"))
    assert room < len(store) * SIZE[0] * SIZE[1] / 4  # 3 bytes a pixel for images, 1 for labels
    assert (store.images / "images.u8").stat().st_size == 1
    assert told[0].endswith(f" in {tmp_path}; images stay in their files)")
    holds = {entry.holds for entry in entries(tmp_path)}
    assert holds == {"facts of images that stay in their files", "labels camvid11 24x40"}
    assert prune(tmp_path, Rules(everything=True)).removed == ()  # in use
    opened.cache_clear()
    del store
    assert len(prune(tmp_path, Rules(everything=True)).removed) == 2


def test_another_size_needs_no_image(
    source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_toy(source, tmp_path, from_files=True)

    def boom(*_: Any) -> Any:
        raise AssertionError("an image was read")

    monkeypatch.setattr(reading, "read_image", boom)
    again = open_toy(source, tmp_path, from_files=True, size_hw=(12, 20))
    assert again.native_hw == ((48, 80),) * len(source.samples)
    assert find_store(
        source,
        size_hw=SIZE,
        space=CAMVID_11,
        cache_dir=tmp_path,
        native_labels=False,
        from_files=True,
    )


def test_labels_are_shared_with_a_decoded_store(source: Source, tmp_path: Path) -> None:
    decoded = open_toy(source, tmp_path)
    from_files = open_toy(source, tmp_path, from_files=True)
    assert from_files.labels == decoded.labels
    assert from_files.images != decoded.images


def test_two_kinds_of_labels_take_one_pass(source: Source, tmp_path: Path) -> None:
    options = {"size_hw": SIZE, "space": CAMVID_11, "native_labels": (False, True)}
    decoded = open_stores(source, cache_dir=tmp_path / "decoded", **options)
    from_files = open_stores(source, cache_dir=tmp_path / "files", from_files=True, **options)
    for one, other in zip(decoded, from_files, strict=True):
        assert_same(one, other)


def test_it_crosses_to_another_process_without_its_samples(source: Source, tmp_path: Path) -> None:
    store = open_toy(source, tmp_path, from_files=True)
    sent = pickle.dumps(store)
    assert source.samples[0].image.encode() not in sent
    there = pickle.loads(sent)
    np.testing.assert_array_equal(there.pair(2)[0], store.pair(2)[0])


def test_a_file_that_changes_under_a_run_is_never_trained_on(tmp_path: Path) -> None:
    path = tmp_path / "mine" / "images" / "a.png"
    for side in ("images", "masks"):
        (tmp_path / "mine" / side).mkdir(parents=True)
    Image.fromarray(np.full((48, 80, 3), 7, np.uint8)).save(path)
    Image.fromarray(np.zeros((48, 80), np.uint8)).save(tmp_path / "mine" / "masks" / "a.png")
    (tmp_path / "mine" / "classes.toml").write_text('space = "camvid11"')
    source = open_source(SourceConfig(kind="folder", root=str(tmp_path / "mine")))
    store = open_toy(source, tmp_path / "cache", from_files=True)
    content = path.read_bytes()
    time.sleep(0.02)  # a tick of the file system's clock
    path.write_bytes(content)  # touched, and the same
    assert (store.pair(0)[0] == 7).all()
    Image.fromarray(np.full((48, 80, 3), 8, np.uint8)).save(path)
    with pytest.raises(BadSample, match=r"a\.png: the file has changed since the run began"):
        store.pair(0)
    again = open_toy(source, tmp_path / "cache", from_files=True)
    assert (again.pair(0)[0] == 8).all()


# ------------------------------------------------------------------ runs


def experiment(painted: Path, cache: Path, store: str, engine: str = "inprocess") -> Experiment:
    data = {"kind": "camvid", "root": str(painted)}
    return tiny_experiment(
        cache,
        data={
            "size": [32, 64],
            "sources": [data],
            "evaluation": [{**data, "split": "val"}],
            "store": store,
        },
        partition={"kind": "iid", "clients": 2, "holdout": 0.25, "holdout_gap": 0},
        federation={"rounds": 2},
        engine={"kind": engine, "workers": 2},
    )


def test_a_run_gives_the_same_model_and_the_same_scores(painted: Path, tmp_path: Path) -> None:
    runs = [
        fleetseg.run(experiment(painted, tmp_path / name, *how), out=tmp_path / f"run-{name}")
        for name, how in {
            "decoded": ("decoded",),
            "files": ("files",),
            "workers": ("files", "workers"),
        }.items()
    ]
    assert len({run.model_sha256 for run in runs}) == 1
    assert len({repr(run.scores.to_dict()) for run in runs}) == 1
    assert len({run.experiment.digest for run in runs}) == 1
    assert not any(f.stat().st_size > 1 for f in (tmp_path / "files").rglob("images.u8"))
