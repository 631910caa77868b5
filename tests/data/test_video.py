"""Frames of videos and cameras, and what is said of files that are none."""

from __future__ import annotations

import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from tests.clips import SIZE_HW, written_clip

from fleetseg.data import video
from fleetseg.data.video import is_video, open_camera, open_video
from fleetseg.errors import BadSample, ConfigError, DataError, MissingExtra

pytest.importorskip("av")
CAMERA = {sys.platform: ("lavfi", "testsrc=size=64x48:rate=10")}
"""FFmpeg's own test picture: a device without an end, as a camera is."""


def test_frames_come_in_order_with_their_rate(tmp_path: Path) -> None:
    with open_video(written_clip(tmp_path / "a.mp4", fps=Fraction(30000, 1001))) as opened:
        assert (opened.fps, opened.num_frames) == (Fraction(30000, 1001), 6)
        frames = list(opened.frames)
    assert {frame.shape for frame in frames} == {(*SIZE_HW, 3)}
    assert {frame.dtype for frame in frames} == {np.dtype(np.uint8)}
    left = [float(frame[:, :20].mean()) for frame in frames]
    assert left == pytest.approx([20 * k for k in range(6)], abs=6)
    assert frames[0][:, 44:].mean() > 240


def test_a_frame_of_a_phone_that_was_held_upright_is_turned() -> None:
    class Turned:
        rotation = 90  # counterclockwise, as FFmpeg counts

        def to_ndarray(self, format: str) -> np.ndarray:
            assert format == "rgb24"
            return np.arange(6, dtype=np.uint8).reshape(1, 2, 3)

    assert video._upright(Turned()).tolist() == [[[3, 4, 5]], [[0, 1, 2]]]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, r"a\.mp4: not a readable video \(No such file"),
        (b"no video", r"a\.mp4: not a readable video \(Invalid data"),
        (b"", r"a\.mp4: not a readable video"),
    ],
)
def test_what_is_no_video_is_named(tmp_path: Path, content: bytes | None, words: str) -> None:
    path = tmp_path / "a.mp4"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(BadSample, match=words), open_video(path):
        pass


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("avi", r"the video is truncated; got \d+ frames of 40"),  # says how many frames there are
        ("mkv", r"video is truncated; got \d+ frames, 1\.\d s, expected 3\.3 s"),  # and how long
    ],
)
def test_a_video_that_breaks_off_gives_the_frames_before(
    tmp_path: Path, kind: str, words: str
) -> None:
    path = written_clip(tmp_path / f"a.{kind}", frames=40)
    content = path.read_bytes()
    middle, end = len(content) // 2, len(content) * 8 // 10
    path.write_bytes(content[:middle] + bytes(end - middle) + content[end:])
    if kind == "mkv":
        path.write_bytes(content[:middle])
    seen: list[np.ndarray] = []
    with open_video(path) as opened, pytest.raises(BadSample, match=words):
        seen.extend(opened.frames)
    assert 5 < len(seen) < 35


def test_frames_that_are_too_large_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(video, "MAX_PIXELS", 100)
    path = written_clip(tmp_path / "a.mp4", frames=1)
    with pytest.raises(BadSample, match="too large to decode safely; got 3,072 pixels"):
        open_video(path).__enter__()


def test_a_camera_has_no_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(video, "CAMERAS", CAMERA)
    with open_camera(0) as opened:
        assert (opened.fps, opened.num_frames) == (Fraction(10), None)
        assert [next(opened.frames).shape for _ in range(3)] == [(48, 64, 3)] * 3


def test_a_camera_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    if sys.platform == "linux":
        with pytest.raises(DataError, match=r"camera 77: cannot be opened .*/dev/video77"):
            open_camera(77).__enter__()
    monkeypatch.setattr(video, "CAMERAS", {})
    with pytest.raises(ConfigError, match="cameras are not supported on this platform"):
        open_camera(0).__enter__()


def test_without_pyav_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(MissingExtra, match=r"pip install 'fleetseg\[video\]'"):
        open_video(tmp_path / "a.mp4").__enter__()


def test_videos_are_known_by_their_names() -> None:
    assert is_video(Path("a/b.MP4"))
    assert not is_video(Path("a/b.png"))
