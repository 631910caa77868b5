"""Short videos to read: streets of one colour each, as PyAV writes them."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np

SIZE_HW = (48, 64)


def written_clip(path: Path, frames: int = 6, fps: Fraction = Fraction(12)) -> Path:
    """Write a video whose frame k is grey 20 k modulo 240 on the left, and bright on the right."""
    import av

    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=fps)
        stream.width, stream.height, stream.pix_fmt = SIZE_HW[1], SIZE_HW[0], "yuv420p"
        stream.bit_rate = 4_000_000
        for number in range(frames):
            image_HWC = np.full((*SIZE_HW, 3), 20 * number % 240, np.uint8)
            image_HWC[:, SIZE_HW[1] // 2 :] = 250
            frame = av.VideoFrame.from_ndarray(image_HWC, format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def clip_facts(path: Path) -> tuple[str, Fraction, int, tuple[int, int]]:
    """Decode a whole video: its codec, frames per second, number of frames and (width, height)."""
    import av

    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        frames = sum(1 for _ in container.decode(video=0))
        return (
            stream.codec_context.name,
            stream.average_rate,
            frames,
            (stream.width, stream.height),
        )
