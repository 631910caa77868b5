"""Options of the commands for a fleet's keys."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fleetseg.cli.paths import as_path as _path

NewKit = Annotated[
    Path,
    typer.Option("--kit", metavar="DIR", help="Folder for this vehicle's kit.", parser=_path),
]
SigningRequest = Annotated[
    Path,
    typer.Argument(
        metavar="NAME.csr", help="The file from fleetseg fleet request.", show_default=False,
        parser=_path,
    ),
]  # fmt: skip
OptionalVehicle = Annotated[str, typer.Argument(metavar="[NAME]", help="The vehicle.")]
RotationRequest = Annotated[
    Path | None,
    typer.Option(
        "--request",
        metavar="NAME.csr",
        help="For a key that the vehicle created (fleetseg fleet request).",
        show_default=False,
        parser=_path,
    ),
]
AllVehicles = Annotated[bool, typer.Option("--all", help="Every vehicle that may take part.")]
RotateServer = Annotated[
    bool,
    typer.Option("--server", help="Root, server and operator; the server must be stopped."),
]
