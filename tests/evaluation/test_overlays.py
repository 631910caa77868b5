"""Overlays with a legend: pictures and videos, and what is left of one that is broken off."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.clips import clip_facts

from fleetseg.data.labels import CAMVID_11, CITYSCAPES_19
from fleetseg.errors import ConfigError
from fleetseg.evaluation.overlays import CODECS, overlay_video, overlay_with_legend
from fleetseg.evaluation.pictures import overlay

FPS = Fraction(30000, 1001)
ROAD, CAR, SKY = (CAMVID_11.classes.index(name) for name in ("road", "car", "sky"))


def street(size_hw: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    image_HWC = np.full((*size_hw, 3), 120, np.uint8)
    label_HW = np.full(size_hw, ROAD, np.uint8)
    label_HW[: size_hw[0] // 2] = CAR
    return image_HWC, label_HW


def colours_of(picture: Image.Image) -> set[tuple[int, ...]]:
    return set(map(tuple, np.unique(np.asarray(picture).reshape(-1, 3), axis=0).tolist()))


def test_the_picture_keeps_its_pixels_and_the_classes_that_are_seen_are_named_below() -> None:
    image_HWC, label_HW = street((300, 480))
    picture = overlay_with_legend(image_HWC, label_HW, CAMVID_11)
    assert picture.width == 480
    plain = overlay(image_HWC, label_HW, CAMVID_11)
    assert np.array_equal(np.asarray(picture)[:300], np.asarray(plain))
    below = colours_of(picture.crop((0, 300, 480, picture.height)))
    assert {CAMVID_11.colours[ROAD], CAMVID_11.colours[CAR]} <= below
    assert CAMVID_11.colours[SKY] not in below
    both = overlay_with_legend(image_HWC, label_HW, CAMVID_11, all_classes=True)
    assert set(CAMVID_11.colours) <= colours_of(both.crop((0, 300, 480, both.height)))


def test_a_small_picture_is_enlarged_until_its_legend_can_be_read() -> None:
    picture = overlay_with_legend(*street((30, 90)), CAMVID_11)
    assert picture.width == 450
    assert picture.height > 150 + 13


def test_the_legend_of_a_large_picture_is_large_too() -> None:
    small, large = (
        overlay_with_legend(*street(size), CITYSCAPES_19, all_classes=True)
        for size in ((240, 480), (1024, 2048))
    )
    heights = small.height - 240, large.height - 1024
    assert heights[1] > 2 * heights[0]


@pytest.mark.parametrize("codecs", [CODECS, ("no-such-codec", "mpeg4")])
def test_a_video_keeps_its_rate_and_all_frames(tmp_path: Path, codecs: tuple[str, ...]) -> None:
    pytest.importorskip("av")
    path = tmp_path / "a.mp4"
    with overlay_video(path, FPS, CAMVID_11, codecs) as add:
        for _ in range(7):
            add(*street((45, 401)))  # odd sides, which chroma of half the size has not
        add(*street((90, 802)))  # a camera that changed its mind
        assert not path.exists()
    codec, fps, frames, size = clip_facts(path)
    assert codec == ("h264" if codecs == CODECS else "mpeg4")
    assert (fps, frames) == (FPS, 8)
    assert size[0] == 402
    assert size[1] % 2 == 0
    assert [p.name for p in tmp_path.iterdir()] == ["a.mp4"]


def test_a_video_that_is_broken_off_can_be_played(tmp_path: Path) -> None:
    pytest.importorskip("av")
    path = tmp_path / "a.mp4"

    def press() -> None:
        with overlay_video(path, FPS, CAMVID_11) as add:
            for _ in range(3):
                add(*street((45, 401)))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        press()
    assert clip_facts(path)[2] == 3


def test_without_frames_there_is_no_file(tmp_path: Path) -> None:
    pytest.importorskip("av")
    with overlay_video(tmp_path / "a.mp4", FPS, CAMVID_11):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_build_that_writes_no_video_is_told(tmp_path: Path) -> None:
    pytest.importorskip("av")
    with (
        pytest.raises(ConfigError, match=r"no supported video encoder.*one of: no-such-codec"),
        overlay_video(tmp_path / "a.mp4", FPS, CAMVID_11, ("no-such-codec",)) as add,
    ):
        add(*street((45, 401)))
    assert list(tmp_path.iterdir()) == []
