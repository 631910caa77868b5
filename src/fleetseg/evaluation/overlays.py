"""Predictions drawn over camera images, with a legend: still images and videos.

Sizes are pixels. Videos need the extra `[video]`.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from fleetseg.data.labels import Colour, LabelSpace
from fleetseg.data.sample import Image_HWC, Label_HW
from fleetseg.data.video import pyav
from fleetseg.errors import ConfigError
from fleetseg.evaluation.pictures import BACKGROUND, entries_of, legend, overlay

CODECS = ("libx264", "libopenh264", "mpeg4")
"""Codecs for overlay videos; the first one that the FFmpeg build has is used."""

AddFrame = Callable[[Image_HWC, Label_HW], None]
_Entries = tuple[tuple[str, Colour], ...]

_LEAST_WIDTH = 400  # narrower images are enlarged, since class names would be illegible
_TEXT_SIZES = (13, 44)
_TEXT_OF_WIDTH = 1 / 44
_OPTIONS = {"libx264": {"crf": "20", "preset": "veryfast"}}
_BITS_A_PIXEL = 0.25  # for codecs that need a bit rate


def overlay_with_legend(
    image_HWC: Image_HWC, label_HW: Label_HW, space: LabelSpace, *, all_classes: bool = False
) -> Image.Image:
    """Blend class colours into an image, and list the classes below it.

    The image keeps its resolution; if it is too narrow for a legend, it is enlarged by an integer
    factor.

    Args:
        image_HWC: the image.
        label_HW: train ids, of the image's size.
        space: meaning of the ids.
        all_classes: list all classes, not only those shown, so that all legends are equal.

    Raises:
        DataError: the sizes differ, or an id is neither a class nor IGNORE.
    """
    named = tuple(zip(space.classes, space.colours, strict=True))
    seen = entries_of([label_HW], space)
    entries = tuple(entry for entry in named if all_classes or entry in seen)
    return _over(_enlarged(overlay(image_HWC, label_HW, space)), entries)


def _enlarged(picture: Image.Image) -> Image.Image:
    factor = -(-_LEAST_WIDTH // picture.width)
    size = (picture.width * factor, picture.height * factor)
    return picture if factor == 1 else picture.resize(size, Image.Resampling.NEAREST)


def _over(picture: Image.Image, entries: _Entries) -> Image.Image:
    """Stack an image above its legend."""
    text_size = min(max(round(picture.width * _TEXT_OF_WIDTH), _TEXT_SIZES[0]), _TEXT_SIZES[1])
    margin = text_size // 2
    key = _legend(entries, picture.width - 2 * margin, text_size)
    height = picture.height + margin + key.height
    sheet = Image.new("RGB", (picture.width, height), BACKGROUND)
    sheet.paste(picture, (0, 0))
    sheet.paste(key, (margin, picture.height))
    return sheet


@lru_cache(maxsize=16)
def _legend(entries: _Entries, width: int, text_size: int) -> Image.Image:
    """Draw a legend, cached for recent frames: text takes as long to draw as everything else."""
    return legend(entries, width, text_size)


@contextmanager
def overlay_video(
    path: Path, fps: Fraction, space: LabelSpace, codecs: Sequence[str] = CODECS
) -> Iterator[AddFrame]:
    """Write a video of overlays above a legend of all classes; frames are added one by one.

    The file gets its name when the block ends, even by an exception; until then it is temporary.
    Without frames there is no file. Frames are resized to the size of the first one.

    Raises:
        MissingExtra: PyAV is not installed.
        ConfigError: the build of FFmpeg has none of the codecs.
    """
    writer = _Writer(path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}.tmp"), fps, codecs)

    def add(image_HWC: Image_HWC, label_HW: Label_HW) -> None:
        writer.add(overlay_with_legend(image_HWC, label_HW, space, all_classes=True))

    try:
        yield add
    finally:
        try:
            writer.close(path)
        finally:
            writer.temporary.unlink(missing_ok=True)


class _Writer:
    """One video file, opened with its first frame."""

    def __init__(self, temporary: Path, fps: Fraction, codecs: Sequence[str]) -> None:
        self.temporary = temporary
        self._av, self._fps, self._codecs = pyav(), fps, codecs
        self._container: Any = None
        self._stream: Any = None

    def add(self, picture: Image.Image) -> None:
        if self._container is None:
            self._open(picture.width, picture.height)
        size = (self._stream.width, self._stream.height)
        if abs(picture.width - size[0]) > 1 or abs(picture.height - size[1]) > 1:
            picture = picture.resize(size, Image.Resampling.BILINEAR)
        whole = Image.new("RGB", size, BACKGROUND)  # even sides, since chroma is subsampled by two
        whole.paste(picture, (0, 0))
        frame = self._av.VideoFrame.from_ndarray(np.asarray(whole), format="rgb24")
        self._container.mux(self._stream.encode(frame))

    def _open(self, width: int, height: int) -> None:
        codec = self._codec()
        self._container = self._av.open(str(self.temporary), "w", format="mp4")
        self._stream = self._container.add_stream(
            codec, rate=self._fps, options=_OPTIONS.get(codec, {})
        )
        self._stream.width, self._stream.height = width + width % 2, height + height % 2
        self._stream.pix_fmt = "yuv420p"  # supported by every player
        if codec not in _OPTIONS:
            self._stream.bit_rate = int(_BITS_A_PIXEL * width * height * self._fps)

    def _codec(self) -> str:
        for name in self._codecs:
            with suppress(self._av.codec.codec.UnknownCodecError):
                self._av.codec.Codec(name, "w")
                return name
        raise ConfigError(
            "this build of FFmpeg has no supported video encoder",
            expected=f"one of: {', '.join(self._codecs)}",
            cure="Install PyAV from its own wheels: pip install --force-reinstall av",
        )

    def close(self, path: Path) -> None:
        """Flush the encoder and give the file its final name."""
        if self._container is None:
            return
        try:
            self._container.mux(self._stream.encode(None))
        finally:
            self._container.close()
        self.temporary.replace(path)
