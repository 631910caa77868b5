"""`fleetseg predict`."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from fleetseg.cli import options as o
from fleetseg.console import reports_errors


class IdsKind(StrEnum):
    """What the pixels of label maps are."""

    train = "train"
    raw = "raw"


Confidence = Annotated[
    bool, typer.Option("--confidence", help="Also write the probability of each pixel's class.")
]
Entropy = Annotated[
    bool, typer.Option("--entropy", help="Also write the entropy of the prediction at each pixel.")
]
Ids = Annotated[
    IdsKind,
    typer.Option("--ids", help="Pixels are train ids, or the ids of the data set's own files."),
]
Tiled = Annotated[
    bool,
    typer.Option(
        "--tiled", help="In overlapping tiles at each image's own resolution, not resized."
    ),
]
Camera = Annotated[
    int | None,
    typer.Option(
        "--camera", metavar="N", min=0, show_default=False,
        help="Also read this machine's camera N, from 0, until Ctrl-C.",
    ),
]  # fmt: skip
Frames = Annotated[
    int | None,
    typer.Option(
        "--frames", metavar="N", min=1, show_default=False,
        help="At most this many frames of each video and camera.",
    ),
]  # fmt: skip


@reports_errors
def predict(
    model: o.ModelOrRun,
    out: o.PredictionsOut,
    inputs: o.Images = None,
    overlay: o.Overlay = False,
    confidence: Confidence = False,
    entropy: Entropy = False,
    ids: Ids = IdsKind.train,
    tiled: Tiled = False,
    camera: Camera = None,
    frames: Frames = None,
    force: o.Force = False,
    norms: o.PredictNorms = "running",
    cluster: o.ClusterOption = None,
    debug: o.Debug = False,
) -> None:
    """Predict a class for every pixel of images and videos: PNGs of ids, at each image's own size.

    The exit code is 1 if an image could not be read; it is named, and the others
    are written. The maps of a video CLIP are CLIP/000001.png and so on, and --overlay
    writes one video of its frames. Videos and cameras need the extra 'video'.

    \b
    Examples:
      fleetseg predict runs/camvid data/camvid/val --out seen
      fleetseg predict runs/camvid road-1.png road-2.png --out seen --overlay --confidence
      fleetseg predict runs/camvid 'drives/*/front/*.jpg' --out seen --ids raw --force
      fleetseg predict runs/camvid drive.mp4 --out seen --overlay
      fleetseg predict runs/camvid --camera 0 --out seen --overlay
    """  # noqa: D301
    from fleetseg.console.predict import predict_and_show
    from fleetseg.runs.prediction_jobs import Request, Wanted

    if not inputs and camera is None:
        raise typer.BadParameter("name images, folders or videos, or a --camera")
    wanted = Wanted(
        overlays=overlay,
        certain=(*(["confidence"] if confidence else []), *(["entropy"] if entropy else [])),  # type: ignore[arg-type]
        ids=ids.value,
    )
    request = Request(inputs or (), out, wanted, camera, frames, force)
    code = predict_and_show(model, request, tiled=tiled, norms=norms, cluster=cluster)
    raise typer.Exit(code)
