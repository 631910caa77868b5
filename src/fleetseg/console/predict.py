"""`fleetseg predict`: a class for every pixel of image files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fleetseg.console import count, print_line, stderr_console, stdout_console
from fleetseg.console.progress import reading
from fleetseg.runs.predicted_files import predict_files

_BAD_LISTED = 10


def predict_and_show(
    model: Path,
    images: Sequence[Path],
    out: Path,
    *,
    overlays: bool,
    force: bool,
    norms: str,
    cluster: int | None = None,
) -> int:
    """Predict, write, and return the exit code: 1 if an image could not be read."""
    with reading(stderr_console(), verb="predicting") as progress:
        done = predict_files(
            model, images, out,
            overlays=overlays, force=force, norms=norms, cluster=cluster, progress=progress,
        )  # fmt: skip
    console = stdout_console()
    for text in done.bad[:_BAD_LISTED]:
        print_line(console, f"bad image skipped: {text}", "yellow")
    if (more := len(done.bad) - _BAD_LISTED) > 0:
        print_line(console, f"and {count(more, 'more bad image')}", "yellow")
    with_overlays = ", each with an overlay" if overlays and done.images else ""
    print_line(console, f"{count(done.images, 'label map')}{with_overlays} in {out}")
    return 1 if done.bad else 0
