"""`fleetseg export`: a model as a file for other programs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fleetseg.cli import options as o
from fleetseg.console import reports_errors

ExportFormat = Annotated[
    str, typer.Option("--format", metavar="F", help="onnx, torch-export or folder.")
]
ExportSize = Annotated[
    str,
    typer.Option(
        "--size", metavar="HxW", show_default=False,
        help="Height x width of the input images; default: the training size.",
    ),
]  # fmt: skip
ExportOut = Annotated[
    Path | None,
    typer.Option(
        "--out", metavar="DIR", help="Output folder; default: beside the model's weights.",
        show_default=False, parser=o._path,
    ),
]  # fmt: skip
ExportImages = Annotated[
    list[Path] | None,
    typer.Option(
        "--images", metavar="PATH", show_default=False, parser=o._path,
        help="Images for the comparison with torch: a file or a folder; repeatable; "
        "default: what the model's run scored on.",
    ),
]  # fmt: skip
InInt8 = Annotated[
    bool, typer.Option("--int8", help="Also write an 8-bit ONNX file; needs --calibrate.")
]
Calibrate = Annotated[
    list[Path] | None,
    typer.Option(
        "--calibrate", metavar="PATH", show_default=False, parser=o._path,
        help="Your images, from which value ranges for 8 bits are taken; no labels needed.",
    ),
]  # fmt: skip
MinAgreement = Annotated[
    float,
    typer.Option(
        "--min-agreement", metavar="X", min=0, max=1,
        help="Least share of pixels whose class must be the same in 8 bits.",
    ),
]  # fmt: skip


@reports_errors
def export(
    model: o.ModelOrRun,
    format: ExportFormat = "onnx",
    out: ExportOut = None,
    size: ExportSize = "",
    images: ExportImages = None,
    int8: InInt8 = False,
    calibrate: Calibrate = None,
    min_agreement: MinAgreement = 0.9,
    cluster: o.ClusterOption = None,
    force: o.Force = False,
    debug: o.Debug = False,
) -> None:
    """Write a model as ONNX, as a torch.export program, or as a folder with its card.

    Normalisation is included: the input is RGB bytes, (N, H, W, 3), the output logits. The file
    is compared with torch on real images first, and not written if its results differ.
    An ONNX file comes with predict.py, which needs only numpy, Pillow and onnxruntime.

    \b
    Examples:
      fleetseg export runs/camvid
      fleetseg export runs/camvid --int8 --calibrate data/camvid/train
      fleetseg export runs/camvid/model --images drives/today --size 360x480 --out in-the-car
      fleetseg export runs/camvid --format torch-export
      fleetseg export runs/camvid --format folder --out camvid-model
    """  # noqa: D301
    if int8 != bool(calibrate):
        raise typer.BadParameter("--int8 and --calibrate go together")
    if format == "folder":
        if size or images or int8 or cluster is not None:
            raise typer.BadParameter("--format folder takes --out and --force only")
        from fleetseg.console.export import export_folder_and_show

        export_folder_and_show(model, out, force=force)
        return
    from fleetseg.console.export import export_and_show

    export_and_show(
        model, format, out,
        size=size, images=images or (), calibrate=calibrate or (), min_agreement=min_agreement,
        cluster=cluster, force=force,
    )  # fmt: skip
