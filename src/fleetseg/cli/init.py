"""`fleetseg init`: from a folder of images to an experiment file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fleetseg.cli import options as o
from fleetseg.console import reports_errors

Folder = Annotated[
    Path,
    typer.Argument(
        metavar="FOLDER", help="Images with masks, or a published data set.", parser=o._path
    ),
]
Out = Annotated[
    Path | None,
    typer.Option(
        "--out", metavar="FILE.toml", help="The file; default: named after the data set.",
        show_default=False, parser=o._path,
    ),
]  # fmt: skip
Kind = Annotated[
    str,
    typer.Option(
        "--dataset", metavar="KIND", help="Its layout, or synthetic; default: detected.",
        show_default=False,
    ),
]  # fmt: skip
Replace = Annotated[bool, typer.Option("--force", help="Replace an existing file.")]


@reports_errors
def init(
    folder: Folder = Path(),
    dataset: Kind = "",
    out: Out = None,
    force: Replace = False,
    debug: o.Debug = False,
) -> None:
    """Inspect a folder of images and masks, and write an experiment file that runs.

    Layout, classes, image size, drives and splits are detected; network, batch and engine are
    chosen for this machine. Each line of the file says why.

    \b
    Examples:
      fleetseg init data/my-drives
      fleetseg init data/camvid --out camvid-first.toml
      fleetseg init --dataset synthetic
    """  # noqa: D301
    from fleetseg.console.init import draft_and_show

    draft_and_show(folder, kind=dataset, out=out, force=force)
