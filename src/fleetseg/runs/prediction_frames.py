"""The images of prediction jobs, one after another, read ahead in the background."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from itertools import count, groupby

from fleetseg.data.ahead import done_ahead
from fleetseg.data.pool import Progress
from fleetseg.data.sample import Image_HWC
from fleetseg.data.sources.reading import read_image
from fleetseg.data.video import Video, open_camera, open_video
from fleetseg.errors import BadSample
from fleetseg.hosts import allowed_cores
from fleetseg.runs.prediction_jobs import Job

_MOST_READERS = 4
_FRAMES_AHEAD = 4


@dataclass(frozen=True)
class Frame:
    """One image and its origin."""

    job: Job
    image_HWC: Image_HWC
    number: int | None = None  # in its video, from 1
    fps: Fraction | None = None  # of its video


def frames_of(
    jobs: Sequence[Job],
    most_frames: int | None,
    on_bad: Callable[[str], None],
    progress: Progress,
) -> Iterator[Frame]:
    """Yield all images and frames in the order of their jobs.

    Args:
        jobs: images, videos and cameras.
        most_frames: limit for each video and camera; None = all, for a camera without end.
        on_bad: called with the defect of an unreadable image, or of a video from some frame on;
            reading continues with the next job.
        progress: called after each image.

    Raises:
        DataError: there is no such camera.
    """
    num_stills, done = sum(not job.moves for job in jobs), 0
    for moves, group in groupby(jobs, key=lambda job: job.moves):
        if moves:
            for job in group:
                yield from _of_video(job, most_frames, on_bad, progress)
            continue
        for frame in _stills(list(group)):
            done += 1
            if isinstance(frame, Frame):
                yield frame
            else:
                on_bad(str(frame))
            progress("images", done, num_stills)


def _stills(jobs: Sequence[Job]) -> Iterator[Frame | BadSample]:
    readers = min(_MOST_READERS, max(1, allowed_cores() // 2))
    with done_ahead((partial(_read, job) for job in jobs), readers, 2 * readers) as frames:
        yield from frames


def _read(job: Job) -> Frame | BadSample:
    try:
        return Frame(job, read_image(str(job.source)))
    except BadSample as error:
        return error


def _of_video(
    job: Job, most: int | None, on_bad: Callable[[str], None], progress: Progress
) -> Iterator[Frame]:
    what, total = f"frames of {job.name}", 0
    try:
        with _opened(job) as video:
            ends = [length for length in (most, video.num_frames) if length]
            total = min(ends, default=0)
            numbers = count(1) if most is None else range(1, most + 1)
            jobs = (partial(next, video.frames, None) for _ in numbers)
            with done_ahead(jobs, 1, _FRAMES_AHEAD) as images:  # one thread keeps the order
                for number, image_HWC in enumerate(images, start=1):
                    if image_HWC is None:
                        break
                    yield Frame(job, image_HWC, number, video.fps)
                    if not total or number < total:  # the file's own count may be off
                        progress(what, number, total)
    except BadSample as error:
        on_bad(str(error))
    if total:
        progress(what, total, total)


def _opened(job: Job) -> AbstractContextManager[Video]:
    return open_camera(job.source) if isinstance(job.source, int) else open_video(job.source)
