"""Read frames of a video file or a camera, upright, as 8-bit RGB; needs the extra `[video]`.

Suffixes: HWC = height, width, RGB channel.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from fleetseg.data.sample import Image_HWC
from fleetseg.data.sources.reading import MAX_PIXELS
from fleetseg.errors import BadSample, ConfigError, DataError, MissingExtra

VIDEO_SUFFIXES = (
    ".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ts", ".wmv",
)  # fmt: skip
"""Suffixes of video files; only opening a file shows whether it is a video."""

CAMERAS = {
    "linux": ("v4l2", "/dev/video{}"),
    "darwin": ("avfoundation", "{}"),
    "win32": ("vfwcap", "{}"),
}
"""By `sys.platform`: the FFmpeg input format for cameras, and how it names a camera number."""

_USUAL_FPS = Fraction(25)  # if neither the file nor the camera says
_WHOLE = 0.9  # least share of the length in the header for a whole video; headers can be inexact
_FINEST_FPS = 1001  # denominator of television's 30000/1001


@dataclass(frozen=True)
class Video:
    """An open video; its frames can be taken once."""

    fps: Fraction
    num_frames: int | None  # as the file says, which may be slightly off; None = unknown
    frames: Iterator[Image_HWC]


def pyav() -> Any:
    """Import PyAV, or raise MissingExtra."""
    try:
        import av as package
    except ImportError:
        raise MissingExtra("av", "video", "reading and writing videos") from None
    return package


def is_video(path: Path) -> bool:
    """Return whether a file has the suffix of a video."""
    return path.suffix.lower() in VIDEO_SUFFIXES


@contextmanager
def open_video(path: Path) -> Iterator[Video]:
    """Open a video file.

    Raises:
        BadSample: the file is missing, damaged or not a video; `frames` raises it on reaching
            damage.
        MissingExtra: PyAV is not installed.
    """
    av = pyav()
    try:
        container = av.open(str(path))
    except av.error.FFmpegError as error:
        raise BadSample(f"not a readable video ({_reason(error)})", where=path) from None
    with container:
        if not container.streams.video:
            raise BadSample("no video stream in this file", where=path)
        yield _opened(av, container, str(path))


@contextmanager
def open_camera(number: int) -> Iterator[Video]:
    """Open a camera of this machine, by its number from 0.

    Raises:
        DataError: there is no such camera, or it is in use.
        ConfigError: cameras are not supported on this platform.
        MissingExtra: PyAV is not installed.
    """
    av = pyav()
    if sys.platform not in CAMERAS:
        raise ConfigError(
            "cameras are not supported on this platform",
            got=sys.platform,
            expected=", ".join(CAMERAS),
        )
    reader, name = CAMERAS[sys.platform]
    where = f"camera {number}"
    try:
        container = av.open(name.format(number), format=reader)
    except (av.error.FFmpegError, ValueError) as error:
        raise DataError(
            f"cannot be opened ({_reason(error)})",
            where=where,
            got=name.format(number),
            cure="Give the number of a connected camera that no other program is using",
        ) from None
    with container:
        yield _opened(av, container, where)


def _opened(av: Any, container: Any, where: str) -> Video:
    stream = container.streams.video[0]
    stream.thread_type = "AUTO"
    pixels = stream.codec_context.width * stream.codec_context.height
    if pixels > MAX_PIXELS:
        raise BadSample(
            "frames too large to decode safely",
            where=where,
            got=f"{pixels:,} pixels",
            expected=f"at most {MAX_PIXELS:,}",
            cure="Scale the video down",
        )
    fps = stream.average_rate or stream.guessed_rate or _USUAL_FPS
    return Video(
        Fraction(fps).limit_denominator(_FINEST_FPS),
        _num_frames(stream, container, fps),
        _frames(av, container, where),
    )


def _num_frames(stream: Any, container: Any, fps: Fraction) -> int | None:
    if stream.frames:
        return int(stream.frames)
    return round(_length_s(container) * fps) or None


def _frames(av: Any, container: Any, where: str) -> Iterator[Image_HWC]:
    number, reached_s = 0, 0.0
    try:
        for frame in container.decode(video=0):
            number += 1
            reached_s = frame.time or reached_s
            yield _upright(frame)
    except av.error.FFmpegError as error:
        raise BadSample(f"damaged after frame {number} ({_reason(error)})", where=where) from None
    if number == 0:
        raise BadSample("no frame in this video", where=where)
    told = container.streams.video[0].frames
    whole = number >= told * _WHOLE if told else reached_s >= _length_s(container) * _WHOLE - 1
    if not whole:
        raise BadSample(
            "the video is truncated",
            where=where,
            got=f"{number} frames" + (f" of {told}" if told else f", {reached_s:.1f} s"),
            expected=None if told else f"{_length_s(container):.1f} s",
            cure="Copy it again",
        )


def _length_s(container: Any) -> float:
    """Return the duration in seconds according to the file; 0 if it states none."""
    return float(container.duration or 0) / 1_000_000


def _upright(frame: Any) -> Image_HWC:
    image_HWC: Image_HWC = frame.to_ndarray(format="rgb24")
    turns = round(getattr(frame, "rotation", 0) / 90)  # as set by phones; PyAV 14 and later
    return np.ascontiguousarray(np.rot90(image_HWC, turns)) if turns % 4 else image_HWC


def _reason(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error)
