"""Write predictions to files in threads while the next images are predicted."""

from __future__ import annotations

import io
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from PIL import Image

from fleetseg.data.labels import LabelSpace, Table
from fleetseg.evaluation.certainty import certainty_image
from fleetseg.evaluation.overlays import AddFrame, overlay_video, overlay_with_legend
from fleetseg.evaluation.pictures import palette_image
from fleetseg.files import write_atomic
from fleetseg.hosts import allowed_cores
from fleetseg.runs.looks import Look
from fleetseg.runs.prediction_frames import Frame
from fleetseg.runs.prediction_jobs import Job, Wanted

Write = Callable[[Frame, Look], None]

_MOST_WRITERS = 4
_HELD = 4  # images per thread that may wait to be written
_PHOTO_LEVEL = 2  # of PNG, for overlays: a fifth of the time of level 6, a few percent larger


@dataclass(frozen=True)
class Style:
    """How predictions are written."""

    space: LabelSpace
    wanted: Wanted
    raw_ids: Table | None = None


@contextmanager
def writing(style: Style, on_written: Callable[[Job], None]) -> Iterator[Write]:
    """Yield a function that queues predictions; all are written, however the block ends.

    `on_written` is called by the thread that has written an image's files.

    Raises:
        CheckpointError: the disk is full.
        ConfigError: this build of FFmpeg cannot write the video.
    """
    threads = min(_MOST_WRITERS, max(1, allowed_cores() // 2))
    waiting: deque[Future[None]] = deque()
    film = _Film(style.space)
    with (
        ThreadPoolExecutor(threads, "fleetseg-write") as pool,
        ThreadPoolExecutor(1, "fleetseg-film") as in_order,
    ):

        def write(frame: Frame, look: Look) -> None:
            waiting.append(pool.submit(_write_pictures, frame, look, style, on_written))
            if frame.fps is not None and style.wanted.overlays:
                waiting.append(in_order.submit(film.add, frame.job, frame.fps, look))
            while len(waiting) > _HELD * threads:
                waiting.popleft().result()

        try:
            yield write
        finally:
            waiting.append(in_order.submit(film.close))
            for future in waiting:
                future.result()


class _Film:
    """The overlay video of the current job; used by one thread only."""

    def __init__(self, space: LabelSpace) -> None:
        self._space = space
        self._job: Job | None = None
        self._add: AddFrame | None = None
        self._open = ExitStack()

    def add(self, job: Job, fps: Fraction, look: Look) -> None:
        if job != self._job or self._add is None:
            self.close()
            job.video.parent.mkdir(parents=True, exist_ok=True)
            self._job = job
            self._add = self._open.enter_context(overlay_video(job.video, fps, self._space))
        self._add(look.image_HWC, look.map_HW)

    def close(self) -> None:
        self._open.close()
        self._job = self._add = None


def _write_pictures(
    frame: Frame, look: Look, style: Style, on_written: Callable[[Job], None]
) -> None:
    job, number = frame.job, frame.number
    ids = job.png("", number)
    ids.parent.mkdir(parents=True, exist_ok=True)
    _save(palette_image(look.map_HW, style.space, style.raw_ids), ids)
    for kind in style.wanted.certain:
        _save(certainty_image(look.certain[kind], kind), job.png(kind, number))
    if style.wanted.overlays and number is None:
        drawn = overlay_with_legend(look.image_HWC, look.map_HW, style.space)
        _save(drawn, job.png("overlay", number), _PHOTO_LEVEL)
    on_written(job)


def _save(picture: Image.Image, path: Path, level: int = 6) -> None:
    content = io.BytesIO()
    picture.save(content, format="PNG", compress_level=level)
    write_atomic(path, content.getvalue())
