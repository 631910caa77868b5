"""The options of `fleetseg release`, `releases` and `rollback`, each described once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fleetseg.cli.paths import as_path

Against = Annotated[
    Path | None,
    typer.Option(
        "--against", metavar="CURRENT", show_default=False, parser=as_path,
        help="The current model: a run, a model folder or a registry; default: from --models.",
    ),
]  # fmt: skip
PolicyFile = Annotated[
    Path | None,
    typer.Option(
        "--policy", metavar="POLICY.toml", show_default=False, parser=as_path,
        help="The policy for candidates; default: see docs/release.md.",
    ),
]  # fmt: skip
Registry = Annotated[
    Path,
    typer.Option("--models", metavar="DIR", help="The registry of releases.", parser=as_path),
]
ReleaseOn = Annotated[
    Path | None,
    typer.Option(
        "--on", metavar="EXPERIMENT.toml", show_default=False, parser=as_path,
        help="Experiment with the test frames; default: those of the run.",
    ),
]  # fmt: skip
OnClients = Annotated[
    bool,
    typer.Option(
        "--on-clients", help="Vehicles judge on their held-out frames; only sums leave them."
    ),
]
OnFleet = Annotated[
    Path | None,
    typer.Option(
        "--fleet", metavar="DIR", show_default=False, parser=as_path,
        help="The vehicles of this fleet judge, over the network; only sums leave them.",
    ),
]  # fmt: skip
Wait = Annotated[
    float,
    typer.Option("--wait", min=0, metavar="SECONDS", help="Time to wait for absent vehicles."),
]
Number = Annotated[
    int | None,
    typer.Argument(
        min=1, metavar="[NUMBER]", show_default=False, help="The release; default: the current one."
    ),
]  # fmt: skip
ReleaseOut = Annotated[
    Path | None,
    typer.Option(
        "--out", metavar="DIR", show_default=False, parser=as_path,
        help="Folder for release.json and the page; default: RUN/release.",
    ),
]  # fmt: skip
JudgeOnly = Annotated[
    bool, typer.Option("--dry-run", help="Judge, and add nothing to the registry.")
]
To = Annotated[
    int | None,
    typer.Option(
        "--to", min=1, metavar="NUMBER", show_default=False,
        help="The release; default: the previous one.",
    ),
]  # fmt: skip
