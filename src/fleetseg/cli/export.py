"""`fleetseg export`: a model as a file that other programs run."""

from __future__ import annotations

import typer

from fleetseg.cli import options as o
from fleetseg.console import reports_errors


@reports_errors
def export(
    model: o.ModelOrRun,
    format: o.ExportFormat = "onnx",
    out: o.ExportOut = None,
    size: o.ExportSize = "",
    images: o.ExportImages = None,
    int8: o.InInt8 = False,
    calibrate: o.Calibrate = None,
    min_agreement: o.MinAgreement = 0.9,
    cluster: o.ClusterOption = None,
    force: o.Force = False,
    debug: o.Debug = False,
) -> None:
    """Write a model as ONNX, as a program of torch.export, or as a folder with its card.

    Normalisation is inside: RGB bytes go in, (N, H, W, 3), and logits come out. The file is
    compared with torch on real images first, and not written if it computes something else.
    Beside an ONNX file lies predict.py, which needs numpy, Pillow and onnxruntime only.

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
