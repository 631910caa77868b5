"""Predictions of image files, videos and cameras, written to one folder."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from fleetseg.data.labels import raw_id_table
from fleetseg.data.pool import Progress
from fleetseg.data.sample import Image_HWC
from fleetseg.data.video import pyav
from fleetseg.evaluation.norms import Norms
from fleetseg.models.segmenter import Segmenter
from fleetseg.runs.inference import ReadyModel
from fleetseg.runs.looks import Look, Manner, looks, require_usable
from fleetseg.runs.predict import ready_to_predict
from fleetseg.runs.prediction_frames import Frame, frames_of
from fleetseg.runs.prediction_jobs import Job, Request, find_jobs
from fleetseg.runs.prediction_writer import Style, writing


@dataclass(frozen=True)
class PredictedFiles:
    """The result of predicting files."""

    images: int  # predicted and written, including frames of videos
    videos: int  # overlay videos written
    bad: tuple[str, ...]  # the defect of each unusable file
    seconds: float  # from reading the first image to writing the last file
    interrupted: bool = False  # by Ctrl-C; the files written so far stay

    @property
    def images_per_s(self) -> float:
        """Images per second, including all reading and writing."""
        return self.images / max(self.seconds, 1e-9)


def predict_files(
    model: Segmenter | str | Path,
    request: Request,
    *,
    tiled: bool = False,
    norms: str = "running",
    cluster: int | None = None,
    progress: Progress = lambda what, done, total: None,
) -> PredictedFiles:
    """Predict images and videos and write the maps to a folder; bad files are skipped and listed.

    Ctrl-C ends the work early: everything predicted so far is written, and videos are closed.
    `tiled`, `norms` and `cluster` are as for `predict`; `progress` is called after each image, with
    a total of 0 if it is not known.

    Raises:
        ModelError: there is no model.
        DataError: no such file, folder or camera, or no picture in it.
        ConfigError: output files exist already, two images map to one file, or an image would be
            overwritten; the data set's own ids are not known.
        MissingExtra: a video is given, and PyAV is not installed.
        OutOfMemory: not even one image fits.
    """
    jobs, wanted = find_jobs(request), request.wanted
    if any(job.moves for job in jobs):
        pyav()
    ready = ready_to_predict(model, "auto", "auto", Norms(norms), cluster)
    manner = Manner(tiled=tiled, certain=bool(wanted.certain))
    require_usable(ready, manner)
    style = Style(ready.space, wanted, raw_id_table(ready.space) if wanted.ids == "raw" else None)
    bad: list[str] = []
    written: list[Job] = []  # one for each image or frame; Ctrl-C may come between any two lines
    interrupted, started_s = False, time.perf_counter()
    frames = frames_of(jobs, request.most_frames, bad.append, progress)
    try:
        with writing(style, written.append) as write:
            for frame, look in _looks_at(frames, ready, manner):
                write(frame, look)
    except KeyboardInterrupt:
        interrupted = True
    seconds = time.perf_counter() - started_s
    filmed = {job.video for job in written if job.moves and wanted.overlays}
    return PredictedFiles(len(written), len(filmed), tuple(bad), seconds, interrupted)


def _looks_at(
    frames: Iterable[Frame], ready: ReadyModel, manner: Manner
) -> Iterator[tuple[Frame, Look]]:
    waiting: deque[Frame] = deque()

    def images() -> Iterator[Image_HWC]:
        for frame in frames:
            waiting.append(frame)
            yield frame.image_HWC

    for look in looks(ready, images(), manner):
        yield waiting.popleft(), look
