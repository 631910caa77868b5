"""Decoded samples: the pixels of the files, kept by content, and safe from other processes."""

from __future__ import annotations

import dataclasses
import errno
import hashlib
import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from fleetseg.config import SourceConfig
from fleetseg.data.labels import CAMVID_11, CITYSCAPES_19, IDD_7, IGNORE
from fleetseg.data.sample import Image_HWC, Label_HW, Sample, Source
from fleetseg.data.sources import open_source, reading
from fleetseg.data.store import build, cache, digests
from fleetseg.data.store.cache import (
    Pooled,
    Store,
    View,
    default_cache_dir,
    open_store,
    open_stores,
)
from fleetseg.data.store.decoding import resized_image, resized_label
from fleetseg.data.store.digests import sample_digests
from fleetseg.data.store.store import opened
from fleetseg.errors import BadSample, ConfigError, DataError

SIZE = (4, 6)


@pytest.fixture(autouse=True)
def _settled_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    # Files of these tests are milliseconds old; one test looks at the real window.
    monkeypatch.setattr(digests, "RACY_NS", 0)


def read_files(sample: Sample) -> tuple[Image_HWC, Label_HW | None]:
    try:
        image_HWC = np.array(Image.open(sample.image))
    except OSError:
        raise BadSample("cannot be read", where=sample.image) from None
    return image_HWC, None if sample.label is None else np.array(Image.open(sample.label))


def digest_files(sample: Sample) -> tuple[str, str]:
    paths = (sample.image, sample.label)
    image, label = (hashlib.sha256(Path(p).read_bytes()).hexdigest() if p else "" for p in paths)
    return image, label


def make_source(folder: Path, count: int = 5, size_hw: tuple[int, int] = (8, 12)) -> Source:
    """Pictures of noise, labels in CamVid's classes."""
    folder.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(0)
    samples = []
    for i in range(count):
        image, label = folder / f"{i}.png", folder / f"{i}_label.png"
        Image.fromarray(generator.integers(0, 256, (*size_hw, 3), dtype=np.uint8)).save(image)
        Image.fromarray(generator.integers(0, 11, size_hw, dtype=np.uint8)).save(label)
        samples.append(Sample(f"toy/{i}", "toy", "train", str(image), str(label), "d", frame=i))
    return Source("toy", CAMVID_11, tuple(samples), read_files, digest_files)


def make_folder(where: Path, count: int, size_hw: tuple[int, int]) -> Path:
    """The same pictures in the layout of `kind = "folder"`, read by fleetseg's own reader."""
    root = where / "folder"
    (root / "images").mkdir(parents=True)
    (root / "masks").mkdir()
    (root / "classes.toml").write_text('space = "camvid11"')
    for sample in make_source(where / "pictures", count, size_hw).samples:
        name = Path(sample.image).name
        shutil.copy(sample.image, root / "images" / name)
        shutil.copy(sample.label or "", root / "masks" / name)
    return root


def unreadable(source: Source) -> Source:
    """The same source, but reading or hashing any file is an error."""

    def boom(sample: Sample, **_: Any) -> Any:
        raise AssertionError(f"{sample.id} was read")

    # A partial's keywords say how files are read, which is part of a store's key.
    facts = source.read.keywords if isinstance(source.read, partial) else {}
    return dataclasses.replace(source, read=partial(boom, **facts), digest=boom)


def open_toy(source: Source, folder: Path, **options: Any) -> Store:
    settings_ = {"size_hw": SIZE, "space": CAMVID_11, "native_labels": False} | options
    return open_store(source, cache_dir=folder / "cache", **settings_)


def stores(folder: Path) -> list[Path]:
    return sorted(p for p in (folder / "cache").iterdir() if p.is_dir())


def kinds(folder: Path) -> list[str]:
    """What lies in the cache: "images" and "labels"."""
    return [path.name.split("-")[-2] for path in stores(folder)]


# ------------------------------------------------------------------ what a store holds


def test_pixels_are_those_of_the_files_at_their_own_size(tmp_path: Path) -> None:
    source = make_source(tmp_path / "data")
    store = open_toy(source, tmp_path, size_hw=(8, 12))
    assert len(store) == 5
    assert store.samples == source.samples
    assert store.digests == tuple(map(digest_files, source.samples))
    for i, sample in enumerate(source.samples):
        image_HWC, label_HW = store.pair(i)
        expected_image_HWC, expected_label_HW = read_files(sample)
        np.testing.assert_array_equal(image_HWC, expected_image_HWC)
        assert expected_label_HW is not None
        np.testing.assert_array_equal(label_HW, expected_label_HW)
        np.testing.assert_array_equal(
            store.histograms_NC[i], np.bincount(expected_label_HW.ravel(), minlength=11)
        )
    assert store.labelled.all()
    assert store.bad == {}


def test_native_labels_keep_their_resolution_while_images_are_resized(tmp_path: Path) -> None:
    big, small = make_source(tmp_path / "big", 2), make_source(tmp_path / "small", 1, (5, 7))
    odd = dataclasses.replace(small.samples[0], id="toy/odd")
    source = dataclasses.replace(big, samples=(big.samples[0], odd, big.samples[1]))
    store = open_toy(source, tmp_path, native_labels=True)
    assert [store.pair(i)[0].shape for i in range(3)] == [(*SIZE, 3)] * 3
    assert [store.pair(i)[1].shape for i in range(3)] == [(8, 12), (5, 7), (8, 12)]
    for i, sample in enumerate(source.samples):
        np.testing.assert_array_equal(store.pair(i)[1], read_files(sample)[1])
    assert store.histograms_NC.sum(axis=1).tolist() == [96, 35, 96]


def test_labels_are_projected_to_the_space_asked_for(tmp_path: Path) -> None:
    source = make_source(tmp_path / "data", 2)
    lut = np.array([6, 5, 4, 0, 1, 5, 4, 4, 3, 2, 2])  # data-notes, section 4
    store = open_toy(source, tmp_path, size_hw=(8, 12), space=IDD_7)
    np.testing.assert_array_equal(store.pair(1)[1], lut[read_files(source.samples[1])[1]])
    assert store.histograms_NC.shape == (2, 7)


def test_labels_to_train_on_lie_open_and_those_to_score_on_are_packed(tmp_path: Path) -> None:
    label_HW = np.zeros((80, 120), np.uint8)
    label_HW[40:] = 3
    source = make_source(tmp_path / "data", 3, (80, 120))
    for sample in source.samples:
        Image.fromarray(label_HW).save(sample.label or "")
    options = {"size_hw": (40, 60), "space": CAMVID_11, "cache_dir": tmp_path / "cache"}
    train, test = open_stores(source, native_labels=(False, True), **options)
    assert (train.labels / "labels.u8").stat().st_size == 3 * 40 * 60
    assert (test.labels / "labels.u8").stat().st_size < 3 * 80 * 120 / 10
    assert np.shares_memory(train.pair(1)[1], train.pair(1)[1])
    for i in range(3):
        np.testing.assert_array_equal(test.pair(i)[1], label_HW)
        assert not test.pair(i)[1].flags.writeable
        assert (test.label_hw(i), train.label_hw(i)) == ((80, 120), (40, 60))


def test_impossible_projection_is_told_before_anything_is_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no projection"):
        open_toy(unreadable(make_source(tmp_path / "data", 1)), tmp_path, space=CITYSCAPES_19)


def test_unlabelled_samples_are_all_ignore_and_flagged(tmp_path: Path) -> None:
    source = make_source(tmp_path / "data", 2)
    bare = dataclasses.replace(source.samples[1], label=None)
    source = dataclasses.replace(source, samples=(source.samples[0], bare))
    store = open_toy(source, tmp_path)
    assert store.labelled.tolist() == [True, False]
    assert (store.pair(1)[1] == IGNORE).all()
    assert store.histograms_NC[1].sum() == 0
    assert store.digests[1][1] == ""
    assert store.bad == {}


def test_pairs_are_plain_views_without_a_copy(tmp_path: Path) -> None:
    store = open_toy(make_source(tmp_path / "data"), tmp_path)
    image_HWC, label_HW = store.pair(2)
    assert type(image_HWC) is type(label_HW) is np.ndarray
    assert np.shares_memory(image_HWC, store.pair(2)[0])
    assert not image_HWC.flags.writeable
    with pytest.raises(IndexError):
        store.pair(5)


# ------------------------------------------------------------------ resizing


def test_label_and_image_are_resized_with_the_same_pixel_centres() -> None:
    # A vertical edge off the grid: wherever the picture is mostly white, the label must be 1.
    label_HW = np.zeros((40, 60), np.uint8)
    label_HW[:, 25:] = 1
    image_HWC = np.repeat(label_HW[..., None] * 255, 3, axis=2)
    for size_hw in ((13, 17), (10, 15), (40, 31), (80, 90)):
        white_HW = resized_image(image_HWC, size_hw)[..., 0] > 127
        np.testing.assert_array_equal(resized_label(label_HW, size_hw), white_HW)


def test_shrinking_does_not_alias() -> None:
    stripes_HWC = np.zeros((64, 64, 3), np.uint8)
    stripes_HWC[:, ::2] = 255
    grey_HWC = resized_image(stripes_HWC, (16, 16))
    assert np.abs(grey_HWC[:, 1:-1].astype(int) - 127).max() <= 16


@settings(max_examples=60, deadline=None)
@given(st.tuples(*[st.integers(1, 50)] * 4))
def test_nearest_agrees_with_pil(sizes: tuple[int, int, int, int]) -> None:
    height, width, new_height, new_width = sizes
    label_HW = (np.arange(height * width) % 251).astype(np.uint8).reshape(height, width)
    expected_HW = Image.fromarray(label_HW).resize(
        (new_width, new_height), Image.Resampling.NEAREST
    )
    # PIL adds up steps in floating point, so on exact ties (x.0) either neighbour is right.
    exact_HW = resized_label(label_HW, (new_height, new_width))
    ties_H = ((2 * np.arange(new_height) + 1) * height) % (2 * new_height) == 0
    ties_W = ((2 * np.arange(new_width) + 1) * width) % (2 * new_width) == 0
    free_HW = ~ties_H[:, None] & ~ties_W
    np.testing.assert_array_equal(exact_HW[free_HW], np.asarray(expected_HW)[free_HW])


# ------------------------------------------------------------------ images once, labels beside


@pytest.fixture
def read_paths(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The folder of each file that is decoded: "images" or "masks"."""
    decoded: list[str] = []
    real = reading._decode

    def counting(path: str, *args: Any) -> Any:
        decoded.append(Path(path).parent.name)
        return real(path, *args)

    monkeypatch.setattr(reading, "_decode", counting)
    return decoded


@pytest.fixture
def folder_source(tmp_path: Path) -> Source:
    root = make_folder(tmp_path, 4, size_hw=(8, 12))
    return open_source(SourceConfig(kind="folder", root=str(root)))


@pytest.mark.parametrize(
    "other", [{"native_labels": True}, {"space": IDD_7}], ids=["native", "space"]
)
def test_another_kind_of_labels_reads_labels_only(
    tmp_path: Path, folder_source: Source, read_paths: list[str], other: dict[str, Any]
) -> None:
    first = open_toy(folder_source, tmp_path)
    assert sorted(read_paths) == ["images"] * 4 + ["masks"] * 4
    read_paths.clear()
    second = open_toy(folder_source, tmp_path, **other)
    assert read_paths == ["masks"] * 4
    assert second.images == first.images
    whole = dataclasses.replace(folder_source, read=lambda s: folder_source.read(s))
    plain = open_toy(whole, tmp_path / "plain", **other)
    for i in range(4):
        for mine, theirs in zip(second.pair(i), plain.pair(i), strict=True):
            np.testing.assert_array_equal(mine, theirs)


def test_another_size_reads_images_only_where_labels_are_native(
    tmp_path: Path, folder_source: Source, read_paths: list[str]
) -> None:
    first = open_toy(folder_source, tmp_path, native_labels=True)
    read_paths.clear()
    second = open_toy(folder_source, tmp_path, native_labels=True, size_hw=(2, 3))
    assert read_paths == ["images"] * 4
    assert second.labels == first.labels
    assert second.pair(0)[0].shape == (2, 3, 3)


def test_two_kinds_of_labels_take_one_pass(
    tmp_path: Path, folder_source: Source, read_paths: list[str]
) -> None:
    options = {"size_hw": SIZE, "space": CAMVID_11, "cache_dir": tmp_path / "cache"}
    train, test = open_stores(folder_source, native_labels=(False, True), **options)
    assert sorted(read_paths) == ["images"] * 4 + ["masks"] * 4
    assert (train.pair(1)[1].shape, test.pair(1)[1].shape) == (SIZE, (8, 12))
    assert kinds(tmp_path) == ["images", "labels", "labels"]


@pytest.mark.parametrize("whole", [True, False], ids=["read-whole", "read-in-parts"])
def test_labels_whose_own_size_is_the_working_size_are_one_file(
    tmp_path: Path, folder_source: Source, whole: bool
) -> None:
    if whole:  # a source that cannot read labels alone, as one of the user's own
        read = folder_source.read
        folder_source = dataclasses.replace(folder_source, read=lambda sample: read(sample))
    options = {"size_hw": (8, 12), "space": CAMVID_11, "cache_dir": tmp_path / "cache"}
    train, test = open_stores(folder_source, native_labels=(False, True), **options)
    assert train == test
    assert open_toy(unreadable(folder_source), tmp_path, native_labels=True, size_hw=(8, 12))
    assert kinds(tmp_path) == ["images", "labels"]
    num_bytes = sum(p.stat().st_size for p in (tmp_path / "cache").rglob("*.u8"))
    assert num_bytes == 4 * 4 * 8 * 12  # those to train on, which are not packed


def test_unlabelled_samples_take_no_room_for_labels(tmp_path: Path, folder_source: Source) -> None:
    bare = [dataclasses.replace(sample, label=None) for sample in folder_source.samples]
    source = dataclasses.replace(folder_source, samples=tuple(bare))
    for native in (False, True):
        store = open_toy(source, tmp_path, native_labels=native)
        assert (store.labels / "labels.u8").stat().st_size == 1
        assert store.pair(3)[1].tolist() == [[IGNORE] * 6] * 4


def test_reasons_of_image_and_label_are_both_noted_whatever_is_read_first(
    tmp_path: Path, folder_source: Source
) -> None:
    """A label is judged alike with its image and without it."""
    first, second, third, fourth = folder_source.samples
    data = Path(first.image).read_bytes()
    Path(first.image).write_bytes(data[: len(data) // 2])  # its head is sound
    Image.fromarray(np.zeros((8, 11), np.uint8)).save(second.label or "")
    Image.fromarray(np.full((8, 12), 99, np.uint8)).save(third.label or "")
    Path(fourth.image).unlink()
    texts = ("truncated or damaged", "differ in size", "label ids outside", "file not found")
    for order in ((False, True), (True, False)):
        cache_dir = tmp_path / str(order)
        for native in order:
            store = open_toy(folder_source, cache_dir, native_labels=native)
            assert sorted(store.bad) == [0, 1, 2, 3]
            for i, text in enumerate(texts):
                assert text in store.bad[i]
            assert not store.labelled.any()
            # The first label is sound: who holds what does not hang on an image's last bytes.
            assert (store.histograms_NC.sum(axis=1) > 0).tolist() == [True, False, False, False]


def test_png_that_tells_its_rotation_after_its_pixels_is_judged_by_its_pixels(
    tmp_path: Path, folder_source: Source
) -> None:
    path = Path(folder_source.samples[0].image)
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn
    Image.open(path).transpose(Image.Transpose.ROTATE_90).save(path, exif=exif)
    raw = path.read_bytes()
    at = raw.index(b"eXIf") - 4
    end = at + 12 + int.from_bytes(raw[at : at + 4], "big")
    tail = raw.index(b"IEND") - 4
    path.write_bytes(raw[:at] + raw[end:tail] + raw[at:end] + raw[tail:])
    assert reading.image_size(str(path)) == (12, 8)  # as it is stored
    open_toy(folder_source, tmp_path, size_hw=(2, 2))
    cache_of_labels = tmp_path / "labels-alone"
    shutil.copytree(tmp_path / "cache", cache_of_labels / "cache")
    assert open_toy(folder_source, cache_of_labels, native_labels=True).bad == {}


# ------------------------------------------------------------------ opening again


def test_second_open_reads_nothing(tmp_path: Path) -> None:
    source = make_source(tmp_path / "data")
    first = open_toy(source, tmp_path)
    second = open_toy(unreadable(source), tmp_path)
    assert second == first
    assert kinds(tmp_path) == ["images", "labels"]


def test_progress_is_told_while_decoding_only(tmp_path: Path) -> None:
    source = make_source(tmp_path / "data", 3)
    told: list[tuple[str, int, int]] = []
    for _ in range(2):
        open_toy(source, tmp_path, progress=lambda *report: told.append(report))
    assert [report[1:] for report in told] == [(0, 3), (1, 3), (2, 3), (3, 3)]
    # First of all, before anything is decoded: 3 images of 4 x 6 pixels, 3 bytes each and 1 for
    # the label.
    assert {what for what, _, _ in told} == {
        f"toy/train (about {4 * 4 * 6 * 3} bytes in {tmp_path / 'cache'})"
    }


@pytest.mark.parametrize(
    ("other", "parts"),
    [
        ({"size_hw": (8, 12)}, ["images", "images", "labels", "labels"]),
        ({"space": IDD_7}, ["images", "labels", "labels"]),
        ({"native_labels": True}, ["images", "labels", "labels"]),
    ],
    ids=["size", "space", "native"],
)
def test_other_settings_are_another_store_but_images_are_kept_once(
    tmp_path: Path, other: dict[str, Any], parts: list[str]
) -> None:
    source = make_source(tmp_path / "data", 2)
    one, two = open_toy(source, tmp_path), open_toy(source, tmp_path, **other)
    assert one.labels != two.labels
    assert kinds(tmp_path) == parts


def test_changed_content_is_decoded_again(tmp_path: Path) -> None:
    source = make_source(tmp_path / "data", 2)
    open_toy(source, tmp_path)
    Image.fromarray(np.full((8, 12), 7, np.uint8)).save(source.samples[1].label or "")
    assert (open_toy(source, tmp_path).pair(1)[1] == 7).all()


def test_moved_files_are_not_decoded_again(tmp_path: Path) -> None:
    source = make_source(tmp_path / "data", 2)
    open_toy(source, tmp_path)
    shutil.copytree(tmp_path / "data", tmp_path / "elsewhere")
    moved = make_source(tmp_path / "elsewhere", 2)
    store = open_toy(dataclasses.replace(moved, read=unreadable(moved).read), tmp_path)
    assert store.samples == moved.samples
    assert kinds(tmp_path) == ["images", "labels"]


def test_changed_classes_toml_is_noticed_though_no_picture_changed(tmp_path: Path) -> None:
    root = tmp_path / "mine"
    (root / "images").mkdir(parents=True)
    (root / "masks").mkdir()
    Image.fromarray(np.zeros((4, 6, 3), np.uint8)).save(root / "images" / "a.png")
    Image.fromarray(np.array([[0, 1, 1, 2, 2, 2]] * 4, np.uint8)).save(root / "masks" / "a.png")
    histograms = []
    for ignore in ("[]", "[1]"):
        toml = f'name = "mine"\nclasses = ["a", "b", "c"]\nignore = {ignore}\n'
        (root / "classes.toml").write_text(toml)
        source = open_source(SourceConfig(kind="folder", root=str(root)))
        store = open_toy(source, tmp_path, space=source.space)
        histograms.append(store.histograms_NC[0].tolist())
    assert histograms == [[4, 8, 12], [4, 0, 12]]


@pytest.mark.parametrize(
    ("part", "name"),
    [
        ("images", "images.u8"),
        ("images", "index.json"),
        ("labels", "labels.u8"),
        ("labels", "index.json"),
    ],
)
@pytest.mark.parametrize("damage", ["truncate", "remove"])
def test_damaged_store_is_made_again(tmp_path: Path, part: str, name: str, damage: str) -> None:
    source = make_source(tmp_path / "data", 2)
    store = open_toy(source, tmp_path)
    before = [array.copy() for i in range(2) for array in store.pair(i)]
    file = getattr(store, part) / name
    opened.cache_clear()
    if damage == "remove":
        file.unlink()
    else:
        file.write_bytes(file.read_bytes()[:-7])
    with pytest.raises(DataError, match="no complete store"):
        Store.load(store.images, store.labels)
    again = open_toy(source, tmp_path)
    after = [array for i in range(2) for array in again.pair(i)]
    for old, new in zip(before, after, strict=True):
        np.testing.assert_array_equal(old, new)
    assert stores(tmp_path) == [store.images, store.labels]


# ------------------------------------------------------------------ trouble


def test_bad_samples_are_noted_with_their_text_and_others_stay(tmp_path: Path) -> None:
    source = make_source(tmp_path / "data", 4)
    Path(source.samples[1].image).write_bytes(b"not a picture")
    Path(source.samples[3].image).unlink()
    store = open_toy(source, tmp_path, native_labels=True)
    assert set(store.bad) == {1, 3}
    assert store.bad[1] == f"{source.samples[1].image}: cannot be read"
    assert store.labelled.tolist() == [True, False, True, False]
    assert store.histograms_NC[1].sum() == 0
    assert store.digests[3] == ("", "")
    np.testing.assert_array_equal(store.pair(2)[1], read_files(source.samples[2])[1])
    for index in (1, 3, -1):
        with pytest.raises(BadSample, match="cannot be read"):
            store.pair(index)
    source = dataclasses.replace(source, read=unreadable(source).read)
    again = open_toy(source, tmp_path, native_labels=True)
    assert again.bad == store.bad


def test_store_of_bad_samples_only_can_be_opened(tmp_path: Path) -> None:
    source = make_source(tmp_path / "data", 1)
    Path(source.samples[0].image).unlink()
    assert set(open_toy(source, tmp_path, native_labels=True).bad) == {0}


@pytest.mark.parametrize(
    ("image", "label", "text"),
    [
        (np.zeros((8, 12), np.uint8), np.zeros((8, 12), np.uint8), "not RGB"),
        (np.zeros((8, 12, 3), np.float32), np.zeros((8, 12), np.uint8), "got float32"),
        (np.zeros((8, 12, 3), np.uint8), np.zeros((8, 11), np.uint8), "does not fit its image"),
        (np.zeros((8, 12, 3), np.uint8), np.zeros((8, 12), np.int64), "got int64"),
        (np.zeros((8, 12, 3), np.uint8), np.full((8, 12), 11, np.uint8), r"ids \[11\] are outside"),
        (np.zeros((8, 12, 3), np.uint8), np.full((8, 12), 255, np.uint8), "no labelled pixel"),
    ],
)
def test_what_a_users_source_gets_wrong_is_a_bad_sample(
    tmp_path: Path, image: Any, label: Any, text: str
) -> None:
    source = dataclasses.replace(make_source(tmp_path / "data", 1), read=lambda _: (image, label))
    store = open_toy(source, tmp_path)
    with pytest.raises(BadSample, match=text):
        store.pair(0)


def test_other_errors_are_not_swallowed_and_leave_nothing_behind(tmp_path: Path) -> None:
    source = make_source(tmp_path / "data", 3)
    with pytest.raises(AssertionError, match="was read"):
        open_toy(dataclasses.replace(source, read=unreadable(source).read), tmp_path)
    assert stores(tmp_path) == []


def test_empty_source_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="toy: no samples"):
        open_toy(Source("toy", CAMVID_11, (), read_files, digest_files), tmp_path)


def test_full_disk_is_told_before_decoding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(cache.shutil, "disk_usage", lambda _: usage._replace(free=479))
    source = make_source(tmp_path / "data", 5)
    with pytest.raises(DataError, match=r"no space left .* 479 bytes free, .* 480 bytes") as caught:
        open_toy(dataclasses.replace(source, read=unreadable(source).read), tmp_path)
    assert str(tmp_path / "cache") in str(caught.value)
    assert "FLEETSEG_CACHE" in str(caught.value)
    assert "fleetseg data cache prune" in str(caught.value)
    assert stores(tmp_path) == []


def test_needed_room_counts_labels_at_their_own_size_packed(tmp_path: Path) -> None:
    config = SourceConfig(kind="folder", root=str(make_folder(tmp_path, 3, size_hw=(40, 60))))
    source = open_source(config)
    told: set[str] = set()
    open_toy(
        source, tmp_path, native_labels=True, progress=lambda what, *_: told.add(what.split("(")[1])
    )
    assert told == {f"about {3 * (3 * 24 + 40 * 60 // 10)} bytes in {tmp_path / 'cache'})"}


def test_disk_that_fills_up_leaves_no_half_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(build, "_write", full)
        with pytest.raises(DataError, match="no space left"):
            open_toy(make_source(tmp_path / "data"), tmp_path)
    assert stores(tmp_path) == []
    assert len(open_toy(make_source(tmp_path / "data"), tmp_path)) == 5


def test_cache_that_cannot_be_written_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(DataError, match=r"cannot be written.*FLEETSEG_CACHE"):
        open_toy(make_source(tmp_path / "data", 1), tmp_path)


# ------------------------------------------------------------------ several processes

BUILDER = """
import sys, time
from pathlib import Path
import numpy as np
from fleetseg.data.store.cache import open_store
from fleetseg.data.labels import CAMVID_11
from fleetseg.data.sample import Sample, Source

def read(sample):
    time.sleep(float(sys.argv[2]))
    return np.full((8, 12, 3), sample.frame, np.uint8), np.zeros((8, 12), np.uint8)

samples = tuple(Sample(f"t/{i}", "t", "train", f"{i}", f"{i}", "d", frame=i) for i in range(40))
source = Source("t", CAMVID_11, samples, read, lambda s: ("a" * 64, "b" * 64))
store = open_store(source, size_hw=(4, 6), space=CAMVID_11, cache_dir=Path(sys.argv[1]),
                   native_labels=False,
                   progress=lambda what, done, of: done and print(done, flush=True))
print(store.images.name, store.labels.name, store.pair(39)[0].max(), flush=True)
"""


def start_builder(folder: Path, delay_s: float) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", textwrap.dedent(BUILDER), str(folder / "cache"), str(delay_s)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_killed_builder_leaves_no_store_and_its_rest_is_swept(tmp_path: Path) -> None:
    builder = start_builder(tmp_path, 0.05)
    assert builder.stdout is not None
    assert builder.stdout.readline() == "1\n"
    os.kill(builder.pid, signal.SIGKILL)
    builder.communicate()
    rests = stores(tmp_path)
    assert len(rests) == 2
    assert all(rest.name.startswith(".building-") for rest in rests)
    minutes_ago = time.time() - 120
    for path in (*rests[0].iterdir(), *rests[1].iterdir(), *rests):
        os.utime(path, (minutes_ago, minutes_ago))
    assert start_builder(tmp_path, 0).communicate()[0].endswith(" 39\n")
    assert kinds(tmp_path) == ["images", "labels"]


def test_half_stores_of_a_living_builder_are_left_alone_however_slow_it_is(tmp_path: Path) -> None:
    builder = start_builder(tmp_path, 0.2)
    assert builder.stdout is not None
    assert builder.stdout.readline() == "1\n"
    hours_ago = time.time() - 7200
    for half in stores(tmp_path):
        for path in (*half.iterdir(), half):
            os.utime(path, (hours_ago, hours_ago))
    cache.sweep(tmp_path / "cache")
    assert builder.communicate()[0].endswith(" 39\n")
    assert kinds(tmp_path) == ["images", "labels"]


def test_concurrent_builders_all_succeed_with_one_store(tmp_path: Path) -> None:
    builders = [start_builder(tmp_path, 0.05) for _ in range(2)]
    outputs = [builder.communicate()[0].splitlines() for builder in builders]
    assert [builder.returncode for builder in builders] == [0, 0]
    assert len({lines[-1] for lines in outputs}) == 1
    assert kinds(tmp_path) == ["images", "labels"]


def test_views_cross_processes_as_a_path_and_numbers(tmp_path: Path) -> None:
    store = open_toy(make_source(tmp_path / "data"), tmp_path)
    view = View(store, (4, 1))
    sent = pickle.dumps(view)
    assert len(sent) < 500
    code = "import pickle, sys; v = pickle.load(sys.stdin.buffer); print(int(v[1][0].sum()))"
    done = subprocess.run([sys.executable, "-c", code], input=sent, stdout=subprocess.PIPE)
    assert int(done.stdout) == int(store.pair(1)[0].sum())


# ------------------------------------------------------------------ views


def test_views_and_pools_index_like_the_list_of_their_pairs(tmp_path: Path) -> None:
    store = open_toy(make_source(tmp_path / "data"), tmp_path)
    parts = [View(store, (3, 0)), View(store, ()), View(store, (4,))]
    pool = Pooled(parts)
    wanted = [3, 0, 4]
    assert [len(part) for part in parts] == [2, 0, 1]
    assert len(pool) == 3
    for place in (0, 1, 2, -1, -3):
        np.testing.assert_array_equal(pool[place][0], store.pair(wanted[place])[0])
    for beyond in (3, -4):
        with pytest.raises(IndexError):
            pool[beyond]
    assert len(Pooled([])) == 0


# ------------------------------------------------------------------ digests


def counting(source: Source) -> tuple[Source, list[str]]:
    hashed: list[str] = []

    def digest(sample: Sample) -> tuple[str, str]:
        hashed.append(sample.id)
        return digest_files(sample)

    return dataclasses.replace(source, digest=digest), hashed


def test_only_changed_files_are_hashed_again(tmp_path: Path) -> None:
    source, hashed = counting(make_source(tmp_path / "data", 3))
    first = sample_digests(source, tmp_path / "memo")
    assert hashed == ["toy/0", "toy/1", "toy/2"]
    assert sample_digests(source, tmp_path / "memo") == first
    assert len(hashed) == 3
    path = Path(source.samples[1].image)
    path.write_bytes(path.read_bytes() + b"x")
    second = sample_digests(source, tmp_path / "memo")
    assert hashed[3:] == ["toy/1"]
    assert second[1][0] == hashlib.sha256(path.read_bytes()).hexdigest() != first[1][0]
    assert second[0] == first[0]


def test_replaced_file_with_the_same_size_and_modification_time_is_noticed(tmp_path: Path) -> None:
    source, _ = counting(make_source(tmp_path / "data", 1))
    first = sample_digests(source, tmp_path / "memo")
    path = Path(source.samples[0].image)
    facts = path.stat()
    path.write_bytes(bytes(255 - b for b in path.read_bytes()))
    os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    assert path.stat().st_mtime_ns == facts.st_mtime_ns
    assert sample_digests(source, tmp_path / "memo") != first


def test_file_changed_a_moment_ago_is_not_remembered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(digests, "RACY_NS", 3_600_000_000_000)
    source, hashed = counting(make_source(tmp_path / "data", 1))
    for _ in range(2):
        sample_digests(source, tmp_path / "memo")
    assert hashed == ["toy/0", "toy/0"]
    assert not (tmp_path / "memo").exists()


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"\xff\xfe", b'{"k": 3}'])
def test_damaged_memo_is_ignored(tmp_path: Path, content: bytes) -> None:
    source = make_source(tmp_path / "data", 2)
    (tmp_path / "memo").write_bytes(content)
    assert sample_digests(source, tmp_path / "memo") == tuple(map(digest_files, source.samples))
    assert len(json.loads((tmp_path / "memo").read_text())) >= 4


def test_damaged_entries_of_a_memo_are_ignored(tmp_path: Path) -> None:
    source = make_source(tmp_path / "data", 1)
    first = sample_digests(source, tmp_path / "memo")
    memo = json.loads((tmp_path / "memo").read_text())
    (tmp_path / "memo").write_text(json.dumps(dict.fromkeys(memo, "abc")))
    assert sample_digests(source, tmp_path / "memo") == first


def test_recipes_ask_their_source_and_many_samples_may_share_a_file(tmp_path: Path) -> None:
    film = tmp_path / "film.mp4"
    film.write_bytes(b"frames")
    frames = [Sample(f"f/{i}", "f", "train", str(film), None, "d", frame=i) for i in range(2)]
    recipe = Sample("r/0", "r", "train", "recipe:0", "recipe:0", "d")

    def digest(sample: Sample) -> tuple[str, str]:
        return hashlib.sha256(sample.id.encode()).hexdigest(), ""

    source = Source("mixed", CAMVID_11, (*frames, recipe), read_files, digest)
    expected = tuple(map(digest, source.samples))
    for _ in range(2):
        assert sample_digests(source, tmp_path / "memo") == expected


def test_processes_add_to_the_memo_of_each_other(tmp_path: Path) -> None:
    one, two = make_source(tmp_path / "one", 2), make_source(tmp_path / "two", 2)
    for source in (one, two):
        sample_digests(source, tmp_path / "memo")
    for source in (one, two):
        sample_digests(unreadable(source), tmp_path / "memo")


# ------------------------------------------------------------------ where it lies


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"FLEETSEG_CACHE": "/a", "XDG_CACHE_HOME": "/b", "HOME": "/c"}, "/a"),
        ({"XDG_CACHE_HOME": "/b", "HOME": "/c"}, "/b/fleetseg"),
        ({"HOME": "/c"}, "/c/.cache/fleetseg"),
    ],
)
def test_default_folder(
    variables: dict[str, str], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("FLEETSEG_CACHE", "XDG_CACHE_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert default_cache_dir() == Path(expected)


# ------------------------------------------------------------------ real data


@pytest.fixture
def camvid(real_data: Path) -> Callable[[int], Source]:
    def open_(limit: int) -> Source:
        config = SourceConfig(kind="camvid", root=str(real_data / "camvid"), limit=limit)
        return open_source(config)

    return open_


@pytest.mark.real_data
def test_camvid_at_its_own_size_is_what_the_files_hold(
    camvid: Callable[[int], Source], tmp_path: Path
) -> None:
    source = camvid(6)
    store = open_toy(source, tmp_path, size_hw=(360, 480))
    assert store.bad == {}
    for i, sample in enumerate(source.samples):
        np.testing.assert_array_equal(store.pair(i)[0], np.array(Image.open(sample.image)))
        raw_HW = np.array(Image.open(sample.label or ""))
        assert store.histograms_NC[i].tolist() == np.bincount(raw_HW.ravel())[:11].tolist()
    assert open_toy(unreadable(source), tmp_path, size_hw=(360, 480)) == store
    # Labels at their own size are those at the working size: the same file.
    native = open_toy(unreadable(source), tmp_path, size_hw=(360, 480), native_labels=True)
    assert native == store
