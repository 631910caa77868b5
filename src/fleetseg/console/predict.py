"""`fleetseg predict`: a class for every pixel of image files, videos and cameras."""

from __future__ import annotations

from pathlib import Path

from fleetseg.console import INTERRUPTED, count, print_line, stderr_console, stdout_console
from fleetseg.console.progress import reading
from fleetseg.console.signals import interruptible
from fleetseg.runs.predicted_files import PredictedFiles, predict_files
from fleetseg.runs.prediction_jobs import Request, Wanted

_BAD_LISTED = 10


def predict_and_show(
    model: Path,
    request: Request,
    *,
    tiled: bool = False,
    norms: str = "running",
    cluster: int | None = None,
) -> int:
    """Predict, write the files, and return the exit code.

    It is 1 if an image could not be read, and 130 after Ctrl-C; for a camera, Ctrl-C is the normal
    end: 0.
    """
    if request.camera is not None and request.most_frames is None:
        print_line(stderr_console(), f"camera {request.camera}: Ctrl-C ends it")
    with interruptible(), reading(stderr_console(), verb="predicting") as progress:
        done = predict_files(
            model, request, tiled=tiled, norms=norms, cluster=cluster, progress=progress
        )
    console = stdout_console()
    for text in done.bad[:_BAD_LISTED]:
        print_line(console, f"bad image skipped: {text}", "yellow")
    if (more := len(done.bad) - _BAD_LISTED) > 0:
        print_line(console, f"and {count(more, 'more bad image')}", "yellow")
    if done.interrupted:
        print_line(console, "interrupted; what was predicted is written")
    print_line(console, f"{_written(done, request.wanted)} in {request.out}{_speed(done)}")
    if done.interrupted and request.camera is None:
        return INTERRUPTED
    return 1 if done.bad else 0


def _written(done: PredictedFiles, wanted: Wanted) -> str:
    """Print what was written."""
    beside = [f"{kind} map" for kind in wanted.certain]
    if wanted.overlays and not done.videos:
        beside.insert(0, "overlay")
    each = f", each with its {' and '.join(beside)}," if beside and done.images else ""
    videos = f" and {count(done.videos, 'overlay video')}" if done.videos else ""
    return f"{count(done.images, 'label map')}{each}{videos}"


def _speed(done: PredictedFiles) -> str:
    return f" ({done.images_per_s:.3g} images/s)" if done.images else ""
